//! Dockerfile instructions that change an image's configuration, as `commit --change` and `import --change` take them.
//!
//! These are the instructions that neither run anything nor touch files. Source: the Dockerfile reference of Docker.

use crate::{Error, Result};
use oci::image::{Config, Healthcheck};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// The shell of commands in shell form, unless the configuration has another.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Ports of one range.
const PORT_MAX: u32 = 65535;

/// Applies instructions to a configuration, in their order.
pub fn apply_changes(config: &mut Config, changes: &[String]) -> Result<()> {
    let mut has_cmd = false;
    for change in changes {
        let text = change.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let name = name.to_ascii_uppercase();
        let done = match (name.as_str(), rest) {
            ("", _) => continue,
            (_, "") => Err(format!("{name} needs an argument")),
            ("CMD", rest) => {
                has_cmd = true;
                command(config, rest).map(|cmd| config.cmd = Some(cmd))
            }
            ("ENTRYPOINT", rest) => command(config, rest).map(|entrypoint| {
                config.entrypoint = Some(entrypoint);
                // The command of before was one for another entry point.
                if !has_cmd {
                    config.cmd = None;
                }
            }),
            (_, rest) => apply(config, &name, rest),
        };
        done.map_err(|reason| Error::Change {
            instruction: text.to_owned(),
            reason,
        })?;
    }
    Ok(())
}

fn apply(config: &mut Config, name: &str, rest: &str) -> Result<(), String> {
    match name {
        "ENV" => {
            for (key, value) in pairs(rest, &config.env)? {
                let prefix = format!("{key}=");
                config.env.retain(|variable| !variable.starts_with(&prefix));
                config.env.push(format!("{prefix}{value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest, &config.env)?),
        "EXPOSE" => {
            for port in words(rest, &config.env)? {
                config.exposed_ports.extend(ports(&port)?);
            }
        }
        "VOLUME" => {
            let volumes = match json(rest) {
                Some(volumes) => volumes,
                None => words(rest, &config.env)?,
            };
            if volumes.iter().any(|volume| volume.trim().is_empty()) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            config.volumes.extend(volumes);
        }
        "USER" => config.user = single(rest, &config.env)?,
        "STOPSIGNAL" => config.stop_signal = stop_signal(single(rest, &config.env)?)?,
        "WORKDIR" => {
            let to = single(rest, &config.env)?;
            config.working_dir = working_dir(&config.working_dir, &to);
        }
        "ONBUILD" => config.on_build.push(on_build(rest)?),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => return Err(format!("{name} is not a valid change command")),
    }
    Ok(())
}

/// A command: a JSON array is taken as it is, anything else is given to a shell.
fn command(config: &Config, rest: &str) -> Result<Vec<String>, String> {
    if let Some(words) = json(rest) {
        return Ok(words);
    }
    let shell = match config.shell.as_slice() {
        [] => SHELL.map(str::to_owned).to_vec(),
        shell => shell.to_vec(),
    };
    Ok([shell, vec![rest.to_owned()]].concat())
}

fn json(rest: &str) -> Option<Vec<String>> {
    serde_json::from_str(rest).ok()
}

fn single(rest: &str, env: &[String]) -> Result<String, String> {
    match words(rest, env)?.as_slice() {
        [word] if !word.is_empty() => Ok(word.clone()),
        _ => Err("it takes exactly one argument".to_owned()),
    }
}

/// `KEY=value KEY="other value"`, or the older `KEY everything else`.
fn pairs(rest: &str, env: &[String]) -> Result<Vec<(String, String)>, String> {
    let first = rest.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{first:?} needs a value"))?;
        let value = Words {
            text: value.trim().chars().collect(),
            at: 0,
            env,
        }
        .all()?;
        return Ok(vec![(key.to_owned(), value)]);
    }
    let split = |word: String| match word.split_once('=') {
        Some(("", _)) | None => Err(format!("{word:?} is not of the form name=value")),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    };
    words(rest, env)?.into_iter().map(split).collect()
}

/// Splits at blanks outside of quotes, takes the quotes away and replaces variables.
fn words(text: &str, env: &[String]) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = Words {
        text: text.chars().collect(),
        at: 0,
        env,
    };
    while let Some(word) = rest.next_word()? {
        words.push(word);
    }
    Ok(words)
}

/// A text that is taken apart.
struct Words<'a> {
    text: Vec<char>,
    at: usize,
    env: &'a [String],
}

impl Words<'_> {
    fn take(&mut self) -> Option<char> {
        let next = self.text.get(self.at).copied();
        self.at += usize::from(next.is_some());
        next
    }

    fn next_word(&mut self) -> Result<Option<String>, String> {
        while self.text.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        if self.at == self.text.len() {
            return Ok(None);
        }
        let mut word = String::new();
        while self.text.get(self.at).is_some_and(|c| !c.is_whitespace()) {
            self.piece(&mut word)?;
        }
        Ok(Some(word))
    }

    /// The whole rest as one word, blanks included.
    fn all(&mut self) -> Result<String, String> {
        let mut word = String::new();
        while self.at < self.text.len() {
            self.piece(&mut word)?;
        }
        Ok(word)
    }

    /// Takes a character, a quoted part or a variable.
    fn piece(&mut self, word: &mut String) -> Result<(), String> {
        const OPEN: &str = "a quote is not closed";
        match self.take() {
            Some('\'') => loop {
                match self.take().ok_or(OPEN)? {
                    '\'' => break,
                    c => word.push(c),
                }
            },
            Some('"') => loop {
                match self.take().ok_or(OPEN)? {
                    '"' => break,
                    '\\' => match self.take().ok_or(OPEN)? {
                        c @ ('"' | '\\' | '$') => word.push(c),
                        c => word.extend(['\\', c]),
                    },
                    '$' => self.variable(word)?,
                    c => word.push(c),
                }
            },
            Some('\\') => word.extend(self.take()),
            Some('$') => self.variable(word)?,
            Some(c) => word.push(c),
            None => {}
        }
        Ok(())
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+alternative}`, after the dollar.
    fn variable(&mut self, word: &mut String) -> Result<(), String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.text.get(self.at) != Some(&'{') {
            let name: String = self.text[self.at..]
                .iter()
                .take_while(|c| is_name(**c))
                .collect();
            self.at += name.len();
            match name.as_str() {
                "" => word.push('$'),
                name => word.push_str(self.value(name).unwrap_or_default()),
            }
            return Ok(());
        }
        let inner: String = self.text[self.at + 1..]
            .iter()
            .take_while(|c| **c != '}')
            .collect();
        self.at += inner.chars().count() + 2;
        if self.at > self.text.len() {
            return Err("a variable's brace is not closed".to_owned());
        }
        let (name, modifier) = match inner.split_once(':') {
            Some((name, modifier)) => (name, Some(modifier)),
            None => (inner.as_str(), None),
        };
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(format!("${{{inner}}} is no variable"));
        }
        let value = self
            .value(name)
            .filter(|value| modifier.is_none() || !value.is_empty());
        match modifier.map(|modifier| modifier.split_at_checked(1).unwrap_or_default()) {
            None => word.push_str(value.unwrap_or_default()),
            Some(("-", default)) => word.push_str(value.unwrap_or(default)),
            Some(("+", other)) => word.push_str(value.map_or("", |_| other)),
            Some(_) => return Err(format!("${{{inner}}} has an unknown modifier")),
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The ports that `port`, `port/protocol` or `first-last/protocol` means, each with its protocol. An address and ports of the host
/// before a colon mean nothing, but have to be right.
///
/// # Errors
/// Text that is no port.
pub fn ports(text: &str) -> Result<impl Iterator<Item = String>, String> {
    let invalid = || format!("{text:?} is no port");
    let (host, own) = match text.rsplit_once(':') {
        Some((host, own)) => (Some(host), own),
        None => (None, text),
    };
    let (range, protocol) = own.split_once('/').unwrap_or((own, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(format!("{text:?} has an unknown protocol")),
    };
    let ports = port_range(range).ok_or_else(invalid)?;
    if let Some(host) = host {
        let (address, range) = host.rsplit_once(':').unwrap_or(("", host));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let is_address = address.is_empty() || address.parse::<IpAddr>().is_ok();
        let fits = |of_host: RangeInclusive<u32>| {
            let count = ports.clone().count();
            count == 1 || of_host.count() == count
        };
        if !is_address || !(range.is_empty() || port_range(range).is_some_and(fits)) {
            return Err(invalid());
        }
    }
    Ok(ports.map(move |port| format!("{port}/{protocol}")))
}

/// `port` or `first-last`.
fn port_range(text: &str) -> Option<RangeInclusive<u32>> {
    let number = |text: &str| {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit());
        { text.parse().ok() }.filter(|port| is_plain && *port <= PORT_MAX)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// The directory that a relative one leads to from the one before.
pub fn working_dir(from: &str, to: &str) -> String {
    let mut names = Vec::new();
    let from = if to.starts_with('/') { "" } else { from };
    for name in from.split('/').chain(to.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Checks that text is a signal's name or number.
///
/// # Errors
/// It is none.
fn stop_signal(text: String) -> Result<String, String> {
    let named = text.strip_prefix("SIG").unwrap_or(&text);
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-');
    match !named.is_empty() && named.len() <= 16 && named.bytes().all(plain) {
        true => Ok(text),
        false => Err(format!("{text:?} is no signal")),
    }
}

fn on_build(rest: &str) -> Result<String, String> {
    let trigger = rest
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    match trigger.as_str() {
        "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "FROM" | "MAINTAINER" => Err(format!("{trigger} isn't allowed as an ONBUILD trigger")),
        _ => Ok(rest.to_owned()),
    }
}

fn healthcheck(rest: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("--{option} needs a value"))?;
        rest = after.trim_start();
        match name {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => match value.parse() {
                Ok(retries) if retries >= 0 => check.retries = retries,
                _ => return Err(format!("--retries={value} is no number of times")),
            },
            _ => return Err(format!("--{name} is unknown")),
        }
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match (kind.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => check.test = vec!["NONE".to_owned()],
        ("CMD", "") => return Err("CMD needs a command".to_owned()),
        ("CMD", rest) => {
            check.test = match json(rest) {
                Some(words) => [vec!["CMD".to_owned()], words].concat(),
                // The runtime of checks knows the configuration's shell itself.
                None => vec!["CMD-SHELL".to_owned(), rest.to_owned()],
            };
        }
        (kind, _) => return Err(format!("{kind:?} is neither CMD nor NONE")),
    }
    Ok(check)
}

/// A duration as Go writes it (`1m30s`, `500ms`), in nanoseconds; at least a millisecond, or zero.
///
/// # Errors
/// Text that is no duration.
pub fn duration(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("h", 3.6e12),
        ("m", 6e10),
        ("s", 1e9),
    ];
    let invalid = || format!("{text:?} is no duration");
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() && text != "0" {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(invalid)?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let (unit, factor) = UNITS
            .iter()
            .find(|(unit, _)| after.starts_with(unit))
            .ok_or_else(invalid)?;
        total += number * factor;
        rest = &after[unit.len()..];
    }
    // Nanoseconds of 292 years; beyond, the conversion would saturate.
    if text.is_empty() || total >= 9.2e18 || (total > 0.0 && total < 1e6) {
        return Err(invalid());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked against the type's range above"
    )]
    Ok(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(changes: &[&str]) -> Result<Config> {
        let mut config = Config {
            env: vec!["PATH=/bin".to_owned()],
            cmd: Some(vec!["old".to_owned()]),
            working_dir: "/srv".to_owned(),
            ..Config::default()
        };
        let changes: Vec<_> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply_changes(&mut config, &changes)?;
        Ok(config)
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn commands_are_lists_or_go_to_a_shell() {
        let config = applied(&[r#"CMD ["a", "b c"]"#]).unwrap();
        assert_eq!(config.cmd, Some(list(&["a", "b c"])));
        let config = applied(&["entrypoint exec top -b"]).unwrap();
        assert_eq!(
            config.entrypoint,
            Some(list(&["/bin/sh", "-c", "exec top -b"]))
        );
        assert_eq!(
            config.cmd, None,
            "the old command was for another entry point"
        );
        let config = applied(&["CMD new", "ENTRYPOINT [\"e\"]"]).unwrap();
        assert_eq!(config.cmd, Some(list(&["/bin/sh", "-c", "new"])));
    }

    #[test]
    fn variables_and_labels_take_quotes_and_variables() {
        let config = applied(&[
            "ENV A=1 B=\"two words\" C='$A' PATH=$PATH:/x",
            "ENV OLD style with  blanks",
            "ENV A=${A:-x}2 D=${NONE:-default} E=${NONE:+y}${A:+yes} F=\\$A",
            "LABEL k=v \"quoted key\"=\"v=${A}\"",
        ]);
        let config = config.unwrap();
        assert_eq!(
            config.env,
            list(&[
                "B=two words",
                "C=$A",
                "PATH=/bin:/x",
                "OLD=style with  blanks",
                "A=12",
                "D=default",
                "E=yes",
                "F=$A",
            ])
        );
        assert_eq!(config.labels["quoted key"], "v=12");
    }

    #[test]
    fn the_other_instructions_are_applied() {
        let config = applied(&[
            "EXPOSE 80 53/UDP 8000-8002",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "USER 1000:1000",
            "WORKDIR sub/../x",
            "STOPSIGNAL SIGRTMIN+3",
            "ONBUILD RUN make",
            "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f x",
            "",
        ]);
        let config = config.unwrap();
        let ports: Vec<_> = config.exposed_ports.iter().map(String::as_str).collect();
        assert_eq!(
            ports,
            ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]
        );
        assert_eq!(config.volumes.len(), 3);
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("1000:1000", "/srv/x")
        );
        assert_eq!(config.stop_signal, "SIGRTMIN+3");
        assert_eq!(config.on_build, ["RUN make"]);
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f x"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (90_000_000_000, 500_000_000, 3)
        );
        let none = applied(&["HEALTHCHECK NONE"]).unwrap().healthcheck.unwrap();
        assert_eq!(none.test, ["NONE"]);
    }

    #[test]
    fn ports_of_the_host_mean_nothing() {
        for (text, expected) in [
            ("80/", "80/tcp"),
            ("8080:80", "80/tcp"),
            (":80/UDP", "80/udp"),
            ("127.0.0.1::80", "80/tcp"),
            ("[::1]:8080:80", "80/tcp"),
            ("::1:1-2:80-81", "80/tcp 81/tcp"),
            ("1-9:80", "80/tcp"),
        ] {
            let ports: Vec<_> = ports(text).unwrap().collect();
            assert_eq!(ports.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_instruction() {
        for change in [
            "RUN true",
            "FROM x",
            "COPY a b",
            "SHELL [\"x\"]",
            "CMD",
            "ENV",
            "ENV A",
            "ENV =x",
            "ENV A=\"open",
            "ENV A=${B",
            "ENV A=${B:?x}",
            "ENV A=${}",
            "LABEL =v",
            "EXPOSE x",
            "EXPOSE 70000",
            "EXPOSE 2-1",
            "EXPOSE 80/icmp",
            "EXPOSE +80",
            "EXPOSE 80:",
            "EXPOSE x:80",
            "EXPOSE x:80:80",
            "EXPOSE 1-2:80-82",
            "USER a b",
            "WORKDIR a b",
            "STOPSIGNAL kill -9",
            "STOPSIGNAL SIG",
            "ONBUILD ONBUILD RUN x",
            "ONBUILD FROM x",
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK NONE x",
            "HEALTHCHECK --interval=1 CMD x",
            "HEALTHCHECK --interval=1us CMD x",
            "HEALTHCHECK --x=1 CMD x",
            "HEALTHCHECK --interval=9999999999h CMD x",
            "HEALTHCHECK --retries=-1 CMD x",
            "VOLUME [\"\"]",
        ] {
            let error = applied(&[change]).unwrap_err();
            assert!(error.to_string().contains("change \""), "{change}: {error}");
        }
    }

    proptest! {
        #[test]
        fn applying_never_panics(
            name in "ENV|LABEL|EXPOSE|VOLUME|USER|WORKDIR|STOPSIGNAL|HEALTHCHECK|CMD|\\PC{0,8}",
            rest in "[-A-Za-z0-9=\"'\\\\${}:+./\\[\\], ]{0,60}|\\PC{0,30}",
        ) {
            let _ = applied(&[&format!("{name} {rest}")]);
        }
    }
}
