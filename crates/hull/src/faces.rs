//! What help, completion and manual pages say of the faces that read their words themselves.

use cli::{Choice, Face};

/// The engine, the registry and the runtime.
pub(crate) fn all() -> Vec<Face> {
    let mut faces = vec![face("daemon", &crate::daemon::command())];
    let registry = crate::registry::command();
    faces.push(Face {
        usage: "COMMAND".to_owned(),
        ..face("registry", &registry)
    });
    let below = registry.get_subcommands();
    faces.extend(below.map(|command| face(&format!("registry {}", command.get_name()), command)));
    faces.push(Face {
        path: "runtime".to_owned(),
        usage: "[OPTIONS] COMMAND [ARG...]".to_owned(),
        about: "Be an OCI runtime, with the command line of runc and crun".to_owned(),
        options: Vec::new(),
    });
    faces
}

fn face(path: &str, command: &clap::Command) -> Face {
    Face {
        path: path.to_owned(),
        usage: "[OPTIONS]".to_owned(),
        about: text(command.get_about()),
        options: command.get_arguments().filter_map(choice).collect(),
    }
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}

fn choice(argument: &clap::Arg) -> Option<Choice> {
    let takes_value = argument.get_action().takes_values();
    let name = argument.get_value_names().and_then(<[_]>::first);
    let default: Vec<_> = { argument.get_default_values().iter() }
        .map(|value| value.to_string_lossy())
        .collect();
    let mut help = text(argument.get_help());
    if takes_value && !default.is_empty() {
        help.push_str(&format!(" (default {})", default.join(", ")));
    }
    Some(Choice {
        long: argument.get_long()?.to_owned(),
        short: argument.get_short(),
        value: match (takes_value, name) {
            (false, _) => String::new(),
            (true, Some(name)) => name.to_lowercase(),
            (true, None) => "string".to_owned(),
        },
        help,
        hidden: argument.is_hide_set(),
    })
}
