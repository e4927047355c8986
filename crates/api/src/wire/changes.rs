//! A configuration in the body of a commit, as the instructions that change an image's to it.
//!
//! What it says replaces what the container has, but for variables, labels, ports and volumes, which it adds to. What a container
//! alone has of it, such as a terminal, says nothing of an image.

use crate::http::Error;
use api_types as wire;

/// The instructions, as a Dockerfile has them.
pub(crate) fn instructions(config: &wire::Config) -> Result<Vec<String>, Error> {
    if config.healthcheck.is_some() {
        return Err(Error::unsupported(
            "a health check in the body of a commit: use the change HEALTHCHECK, which",
        ));
    }
    let mut lines = Vec::new();
    let mut add = |name: &str, text: String| lines.push(format!("{name} {text}"));
    let words = |words: &Option<wire::StrSlice>| words.clone().unwrap_or_default().0;
    for (name, words) in [
        ("ENTRYPOINT", words(&config.entrypoint)),
        ("CMD", words(&config.cmd)),
    ] {
        if !words.is_empty() {
            add(name, serde_json::json!(words).to_string());
        }
    }
    for (name, text) in [
        ("USER", &config.user),
        ("WORKDIR", &config.working_dir),
        ("STOPSIGNAL", &config.stop_signal),
    ] {
        if !text.is_empty() {
            add(name, text.replace('\\', "\\\\").replace('$', "\\$"));
        }
    }
    for variable in config.env.iter().flatten() {
        let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
        add("ENV", format!("{}={}", quoted(key), quoted(value)));
    }
    for (key, value) in config.labels.iter().flatten() {
        add("LABEL", format!("{}={}", quoted(key), quoted(value)));
    }
    for port in config.exposed_ports.iter().flat_map(|ports| ports.keys()) {
        add("EXPOSE", port.clone());
    }
    let volumes = config.volumes.iter().flat_map(|volumes| volumes.keys());
    let volumes: Vec<&String> = volumes.collect();
    if !volumes.is_empty() {
        add("VOLUME", serde_json::json!(volumes).to_string());
    }
    Ok(lines)
}

/// A word in which nothing means anything.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' | '$' => format!("\\{c}"),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_instructions() {
        let json = r#"{"Cmd":["a","b c"],"User":"u","Env":["A=1 $x \"2\""],"Labels":{"l":"v"},"ExposedPorts":{"80/tcp":{}},
            "Volumes":{"/v":{}},"WorkingDir":"/w","Tty":true}"#;
        let config = api_types::from_slice(json.as_bytes()).unwrap();
        let expected = [
            r#"CMD ["a","b c"]"#,
            "USER u",
            "WORKDIR /w",
            r#"ENV "A"="1 \$x \"2\"""#,
            r#"LABEL "l"="v""#,
            "EXPOSE 80/tcp",
            r#"VOLUME ["/v"]"#,
        ];
        assert_eq!(instructions(&config).unwrap(), expected);
        assert!(instructions(&wire::Config::default()).unwrap().is_empty());
    }
}
