//! `hull port --explain`: who can reach a container's ports, and by which rule.

use crate::container::ls::host_port;
use crate::error::Result;
use crate::output;
use crate::session::Session;
use api_types::{PortExplanation, PortReach};
use client::Request;

/// Asks about one port of a container, as `80/tcp`, or about all that are published or exposed.
pub(crate) async fn explain(session: &Session, name: &str, port: Option<&str>) -> Result<()> {
    let request = Request::get(&["containers", name, "ports"]).query_some("port", port);
    let explained: Vec<PortExplanation> = session.client().await?.json(&request).await?;
    let texts: Vec<String> = explained.iter().map(text).collect();
    output::print(&texts.join("\n"))
}

fn text(explanation: &PortExplanation) -> String {
    let PortExplanation {
        port,
        network,
        address,
        host_ip,
        ..
    } = explanation;
    let published = match (host_ip.as_str(), explanation.host_port.as_str()) {
        ("", _) => "not published".to_owned(),
        (_, "") => "open at the container's own address".to_owned(),
        (ip, host) => format!("published as {}", host_port(ip, host)),
    };
    let mut text = format!("{port} of {address} on network {network}, {published}\n");
    for PortReach {
        from,
        reached,
        why,
        rule,
        others,
    } in &explanation.reach
    {
        let answer = if *reached { "yes" } else { "no" };
        text.push_str(&format!("  {:<15} {answer:<4} {why}\n", title(from)));
        let details = (!rule.is_empty()).then_some(rule).into_iter();
        let others = others.iter().map(|other| format!("and {other}"));
        for line in details.cloned().chain(others) {
            text.push_str(&format!("  {:<15} {:<4} {line}\n", "", ""));
        }
    }
    text
}

/// Who it is about, in words.
fn title(from: &str) -> &str {
    match from {
        "host" => "this host",
        "world" => "other machines",
        "network" => "the network",
        "other-networks" => "other networks",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_origin_has_an_answer_a_reason_and_a_rule() {
        let reach = |from: &str, reached, rule: &str, others: &[&str]| PortReach {
            from: from.to_owned(),
            reached,
            why: "Because.".to_owned(),
            rule: rule.to_owned(),
            others: others.iter().map(|&other| other.to_owned()).collect(),
        };
        let explanation = PortExplanation {
            port: "80/tcp".to_owned(),
            network: "web".to_owned(),
            address: "172.20.0.2".to_owned(),
            host_ip: "::1".to_owned(),
            host_port: "8080".to_owned(),
            reach: vec![
                reach("host", true, "", &[]),
                reach("world", false, "a rule", &["another's chain"]),
            ],
        };
        let expected = "\
80/tcp of 172.20.0.2 on network web, published as [::1]:8080
  this host       yes  Because.
  other machines  no   Because.
                       a rule
                       and another's chain
";
        assert_eq!(text(&explanation), expected);
    }
}
