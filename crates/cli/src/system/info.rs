//! `hull info`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::go::template::Template;
use crate::go::units;
use crate::output;
use crate::session::Session;
use api_types::Info;
use client::Request;

const FLAGS: &[Flag] = &[Flag::text("format", "How to show it: json, or a Go template").short('f')];

pub(crate) const INFO: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what the engine is and has",
    aliases: &["system info", "info"],
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
    let request = Request::get(&["info"]);
    let client = session.client().await;
    if let Some(template) = template {
        let bytes = client?.send(&request).await?.bytes().await?;
        let mut json: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::msg(format!("cannot decode the engine's answer: {error}")))?;
        json["ClientInfo"] = serde_json::json!({
            "Debug": session.debug(),
            "Version": env!("CARGO_PKG_VERSION"),
            "Context": "default",
            "Plugins": [],
            "Warnings": null,
        });
        return output::line(&template.render_struct(&json).map_err(Error::Template)?);
    }
    // The client can say something of itself in any case.
    let version = env!("CARGO_PKG_VERSION");
    output::print(&format!(
        "Client:\n Version:    {version}\n Context:    default\n\nServer:\n"
    ))?;
    let info: Info = client?.json(&request).await?;
    output::print(&pretty(&info))?;
    for warning in info.warnings.iter().flatten() {
        output::complain(warning);
    }
    Ok(())
}

/// Lines as in Docker, the empty ones left out.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn always(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{name}: {value}\n"));
    }

    fn some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.always(name, value);
        }
    }

    /// A title and one line for each value, where there are any.
    fn list<T: std::fmt::Display>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        let lines: String = values
            .into_iter()
            .map(|value| format!("  {value}\n"))
            .collect();
        if !lines.is_empty() {
            self.0.push_str(&format!("{name}:\n{lines}"));
        }
    }
}

fn pretty(info: &Info) -> String {
    let mut lines = Lines::default();
    lines.always(" Containers", info.containers);
    lines.always("  Running", info.containers_running);
    lines.always("  Paused", info.containers_paused);
    lines.always("  Stopped", info.containers_stopped);
    lines.always(" Images", info.images);
    lines.some(" Server Version", &info.server_version);
    lines.some(" Storage Driver", &info.driver);
    for [name, value] in info.driver_status.iter().flatten() {
        lines.always(&format!("  {name}"), value);
    }
    lines.some(" Logging Driver", &info.logging_driver);
    lines.some(" Cgroup Driver", &info.cgroup_driver);
    lines.some(" Cgroup Version", &info.cgroup_version);
    let words = |words: &Option<Vec<String>>| words.as_deref().unwrap_or_default().join(" ");
    lines.0.push_str(" Plugins:\n");
    lines.always("  Volume", words(&info.plugins.volume));
    lines.always("  Network", words(&info.plugins.network));
    lines.some("  Authorization", &words(&info.plugins.authorization));
    lines.always("  Log", words(&info.plugins.log));
    lines.list(" CDI spec directories", info.cdi_spec_dirs.iter().flatten());
    let devices = info
        .discovered_devices
        .iter()
        .map(|device| format!("{}: {}", device.source, device.id));
    lines.list(" Discovered Devices", devices);
    lines.always(" Swarm", &info.swarm.local_node_state);
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    lines.some(" Runtimes", &runtimes.join(" "));
    lines.some(" Default Runtime", &info.default_runtime);
    lines.some(" Init Binary", &info.init_binary);
    lines.some(" containerd version", &info.containerd_commit.id);
    lines.some(" runc version", &info.runc_commit.id);
    lines.some(" init version", &info.init_commit.id);
    lines.list(
        " Security Options",
        info.security_options
            .iter()
            .flatten()
            .map(|option| security(option)),
    );
    host(&mut lines, info);
    lines.0.push('\n');
    lines.0
}

fn host(lines: &mut Lines, info: &Info) {
    lines.some(" Kernel Version", &info.kernel_version);
    lines.some(" Operating System", &info.operating_system);
    lines.some(" OSType", &info.os_type);
    lines.some(" Architecture", &info.architecture);
    lines.always(" CPUs", info.n_cpu);
    #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
    lines.always(" Total Memory", units::bytes_size(info.mem_total as f64));
    lines.some(" Name", &info.name);
    lines.some(" ID", &info.id);
    lines.always(" Docker Root Dir", &info.docker_root_dir);
    lines.always(" Debug Mode", info.debug);
    if info.debug {
        lines.always("  File Descriptors", info.n_fd);
        lines.always("  Goroutines", info.n_goroutines);
        lines.always("  System Time", &info.system_time);
        lines.always("  EventsListeners", info.n_events_listener);
    }
    lines.some(" HTTP Proxy", &info.http_proxy);
    lines.some(" HTTPS Proxy", &info.https_proxy);
    lines.some(" No Proxy", &info.no_proxy);
    lines.list(" Labels", info.labels.iter().flatten());
    lines.always(" Experimental", info.experimental_build);
    if let Some(registries) = &info.registry_config {
        let insecure = registries
            .index_configs
            .values()
            .filter(|index| !index.secure);
        let networks = registries.insecure_registry_cidrs.iter().flatten();
        lines.list(
            " Insecure Registries",
            insecure.map(|index| &index.name).chain(networks),
        );
        lines.list(" Registry Mirrors", registries.mirrors.iter().flatten());
    }
    lines.always(" Live Restore Enabled", info.live_restore_enabled);
    lines.some(" Product License", &info.product_license);
    let pools = info.default_address_pools.iter();
    lines.list(
        " Default Address Pools",
        pools.map(|pool| format!(" Base: {}, Size: {}", pool.base, pool.size)),
    );
    if let Some(firewall) = &info.firewall_backend {
        lines.always(" Firewall Backend", &firewall.driver);
        for [name, value] in &firewall.info {
            lines.always(&format!("  {name}"), value);
        }
    }
}

/// `name=seccomp,profile=builtin` as two lines.
fn security(option: &str) -> String {
    let pairs: Vec<(&str, &str)> = option
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let get = |key| {
        pairs
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    };
    match (get("name"), get("profile")) {
        (Some(name), Some(profile)) => format!("{name}\n   Profile: {profile}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_value_are_left_out() {
        let json = br#"{"Containers":2,"ServerVersion":"1","SecurityOptions":["name=seccomp,profile=builtin","name=cgroupns"],
            "DriverStatus":[["Backing Filesystem","ext4"]],"Driver":"overlay2","MemTotal":1073741824,"NCPU":2,
            "DefaultAddressPools":[{"Base":"10.0.0.0/8","Size":24}],"Runtimes":{"hull":{}}}"#;
        let info: Info = api_types::from_slice(json).unwrap();
        let text = pretty(&info);
        for line in [
            " Containers: 2",
            " Storage Driver: overlay2",
            "  Backing Filesystem: ext4",
            "  seccomp",
            "   Profile: builtin",
            "  cgroupns",
            " Total Memory: 1GiB",
            "   Base: 10.0.0.0/8, Size: 24",
            " Runtimes: hull",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("HTTP Proxy") && !text.contains("runc"));
    }
}
