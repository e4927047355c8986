//! `hull events`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::go::template::{Template, from_struct};
use crate::go::time;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::EventMessage;
use client::Request;
use jiff::Timestamp;

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Show only events with this property (name=value)",
    )
    .short('f')
    .check(keyvalue::check_filter),
    Flag::text("format", "How to show them: json, or a Go template"),
    Flag::text(
        "since",
        "Show also events since a time (2013-01-02T13:23:37Z) or so long ago (42m)",
    ),
    Flag::text("until", "End at this time"),
];

pub(crate) const EVENTS: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what happens, as it happens",
    aliases: &["system events", "events"],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let template = match matches.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let template = template
        .map(Template::parse)
        .transpose()
        .map_err(Error::InspectTemplate)?;
    let now = Timestamp::now();
    let moment = |flag| match matches.text(flag) {
        "" => Ok(None),
        text => {
            let invalid = |reason| Error::msg(format!("invalid value for --{flag}: {reason}"));
            time::moment(text, now).map(Some).map_err(invalid)
        }
    };
    let request = Request::get(&["events"])
        .query_some("since", moment("since")?)
        .query_some("until", moment("until")?)
        .query_some(
            "filters",
            keyvalue::filters(matches.list("filter")).to_query(),
        );
    let mut events = session
        .client()
        .await?
        .send(&request)
        .await?
        .lines::<EventMessage>();
    while let Some(event) = events.next().await? {
        output::line(&match &template {
            None => line(&event),
            Some(template) => {
                let json =
                    serde_json::to_value(&event).map_err(|error| Error::msg(error.to_string()))?;
                template
                    .render(&from_struct(&json))
                    .map_err(Error::Template)?
            }
        })?;
    }
    Ok(())
}

fn line(event: &EventMessage) -> String {
    const NANOS: i64 = 1_000_000_000;
    let nanos = if event.time_nano == 0 {
        event.time.saturating_mul(NANOS)
    } else {
        event.time_nano
    };
    let attributes = event.actor.attributes.iter().flatten();
    let attributes: Vec<String> = attributes
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let attributes = match attributes.is_empty() {
        true => String::new(),
        false => format!(" ({})", attributes.join(", ")),
    };
    format!(
        "{} {} {} {}{attributes}",
        time::local_rfc3339(nanos),
        event.kind,
        event.action,
        event.actor.id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let json = br#"{"status":"die","id":"abc","from":"x","Type":"container","Action":"die",
            "Actor":{"ID":"abc","Attributes":{"name":"n","exitCode":"0"}},"scope":"local","time":5,"timeNano":5000000001}"#;
        let event: EventMessage = api_types::from_slice(json).unwrap();
        assert!(
            line(&event).ends_with(" container die abc (exitCode=0, name=n)"),
            "{}",
            line(&event)
        );
        let value = from_struct(&serde_json::to_value(&event).unwrap());
        let render = |text: &str| Template::parse(text).unwrap().render(&value).unwrap();
        assert_eq!(
            render("{{.Type}} {{.Action}} {{.ID}} {{.Actor.ID}} {{.TimeNano}}"),
            "container die abc abc 5000000001"
        );
        let json: serde_json::Value = serde_json::from_str(&render("{{json .}}")).unwrap();
        assert_eq!(json, serde_json::to_value(&event).unwrap());
    }
}
