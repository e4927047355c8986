//! Flags of what containers have that do not ask for something else.

use clap::{Arg, ArgAction, ArgMatches};
use engine::{Defaults, model::Ulimit};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the runtime answers to.
pub(super) const RUNTIMES: [&str; 3] = ["hull", "io.containerd.runc.v2", "runc"];

/// The flags.
pub(super) fn flags() -> Vec<Arg> {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let list = |name, value, help| text(name, value, help).action(ArgAction::Append);
    vec![
        text("log-driver", "DRIVER", "Where containers' output goes (default: json-file)"),
        list("log-opt", "NAME=VALUE", "An option of that driver"),
        list(
            "default-ulimit",
            "NAME=SOFT[:HARD]",
            "A limit of resources of containers' processes",
        ),
        list("dns", "ADDRESS", "A name server for containers (default: the host's)")
            .value_parser(clap::value_parser!(IpAddr)),
        list("dns-search", "DOMAIN", "Where containers search names"),
        list("dns-opt", "OPTION", "An option of containers' resolv.conf"),
        Arg::new("init")
            .long("init")
            .action(ArgAction::SetTrue)
            .help("Let a reaping init be PID 1 of containers"),
        text(
            "default-runtime",
            "NAME",
            "What the runtime is called that containers ask for by no name; all names are hull's own",
        )
        .value_parser(RUNTIMES),
        list("label", "NAME=VALUE", "A label of the engine"),
    ]
}

/// Reads the flags.
pub(super) fn read(matches: &ArgMatches) -> Result<Defaults, String> {
    let list = |name: &str| -> Vec<String> {
        let values = matches.get_many::<String>(name);
        values.into_iter().flatten().cloned().collect()
    };
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let mut log_options = BTreeMap::new();
    for option in list("log-opt") {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("--log-opt {option:?} is not name=value"))?;
        log_options.insert(name.to_owned(), value.to_owned());
    }
    let ulimits = list("default-ulimit");
    let ulimits = ulimits.iter().map(|text| ulimit(text));
    let dns = matches.get_many::<IpAddr>("dns");
    let defaults = Defaults {
        log_driver: text("log-driver"),
        log_options,
        ulimits: ulimits.collect::<Result<_, _>>()?,
        dns: dns.into_iter().flatten().copied().collect(),
        dns_search: list("dns-search"),
        dns_options: list("dns-opt"),
        init: matches.get_flag("init"),
        runtime: text("default-runtime"),
    };
    defaults.check().map_err(|error| error.chain())?;
    Ok(defaults)
}

/// The engine's labels.
pub(super) fn labels(matches: &ArgMatches) -> Result<Vec<String>, String> {
    let labels = matches.get_many::<String>("label").into_iter().flatten();
    let labels: Vec<String> = labels.cloned().collect();
    match labels.iter().find(|label| !label.contains('=')) {
        Some(label) => Err(format!("bad attribute format: {label}")),
        None => Ok(labels),
    }
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("--default-ulimit {text:?}: it reads like nofile=1024:4096");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    Ok(Ulimit {
        name: name.to_owned(),
        soft: soft.parse().map_err(|_| bad())?,
        hard: hard.parse().map_err(|_| bad())?,
    })
}
