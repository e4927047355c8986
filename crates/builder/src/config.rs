//! Instructions that only change the configuration of the image. Pure.

use crate::error::{Error, Result};
use crate::history;
use crate::language::{Command, Health, HealthTest, Instruction, Pair};
use crate::scope::Scope;
use images::changes;
use oci::image::{Config, Healthcheck};

/// The shell of commands in shell form, unless the configuration has another.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies an instruction; returns what it is in the history. `None`: it is no such instruction.
pub(crate) fn apply(
    config: &mut Config,
    scope: &mut Scope,
    instruction: &Instruction,
    cmd_set: &mut bool,
) -> Result<Option<String>> {
    let env = config.env.clone();
    let word = |text: &str| scope.word(text, &env);
    let told = match instruction {
        Instruction::Env(pairs) => {
            let pairs = expanded(pairs, &word)?;
            environment(config, scope, &pairs)?;
            format!("ENV {}", joined(&pairs))
        }
        Instruction::Label(pairs) => {
            let pairs = expanded(pairs, &word)?;
            config.labels.extend(pairs.iter().cloned());
            format!("LABEL {}", joined(&pairs))
        }
        Instruction::Cmd(command) => {
            let words = argv(config, command);
            *cmd_set = true;
            // Docker's builder says so of every command that it sets, whatever its form.
            config.args_escaped = true;
            let told = format!("CMD {}", history::quoted(&words));
            config.cmd = Some(words);
            told
        }
        Instruction::Entrypoint(command) => {
            let words = argv(config, command);
            // The command of the base image was one for its own entry point.
            if !*cmd_set {
                config.cmd = None;
            }
            let told = format!("ENTRYPOINT {}", history::quoted(&words));
            config.entrypoint = Some(words);
            told
        }
        Instruction::Expose(words) => expose(config, &scope.words(&words.join(" "), &env)?)?,
        Instruction::Volume(words) => {
            let volumes = words
                .iter()
                .map(|text| word(text))
                .collect::<Result<Vec<_>>>()?;
            volume(config, volumes)?
        }
        Instruction::User(text) => {
            config.user = word(text)?;
            format!("USER {}", config.user)
        }
        Instruction::Stopsignal(text) => {
            config.stop_signal = stop_signal(word(text)?)?;
            format!("STOPSIGNAL {}", config.stop_signal)
        }
        Instruction::Shell(words) => {
            config.shell.clone_from(words);
            format!("SHELL [{}]", words.join(" "))
        }
        Instruction::Healthcheck(health) => {
            let check = healthcheck(health);
            let told = history::healthcheck(&check);
            config.healthcheck = Some(check);
            told
        }
        _ => return Ok(None),
    };
    Ok(Some(told))
}

fn environment(config: &mut Config, scope: &mut Scope, pairs: &[(String, String)]) -> Result<()> {
    if let Some(at) = pairs.iter().position(|(name, _)| name.is_empty()) {
        return Err(Error::Invalid(format!("variable {} has no name", at + 1)));
    }
    for (name, value) in pairs {
        set(&mut config.env, name, value);
        scope.set_by_env(name);
    }
    Ok(())
}

/// A signal's name, or a number: one that is no signal here may be one elsewhere.
fn stop_signal(text: String) -> Result<String> {
    let is_number = text.parse::<i32>().is_ok_and(|number| number != 0);
    if !is_number {
        let wrong = |error: engine::Error| Error::Invalid(error.to_string());
        engine::parse_signal(&text).map_err(wrong)?;
    }
    Ok(text)
}

fn expose(config: &mut Config, words: &[String]) -> Result<String> {
    let mut ports = Vec::new();
    for word in words {
        ports.extend(changes::ports(word).map_err(Error::Invalid)?);
    }
    let told = format!("EXPOSE [{}]", ports.join(" "));
    config.exposed_ports.extend(ports);
    Ok(told)
}

fn volume(config: &mut Config, volumes: Vec<String>) -> Result<String> {
    if volumes.iter().any(|volume| volume.trim().is_empty()) {
        let text = "VOLUME specified can not be an empty string";
        return Err(Error::Invalid(text.to_owned()));
    }
    let told = format!("VOLUME [{}]", volumes.join(" "));
    config.volumes.extend(volumes);
    Ok(told)
}

/// The words of a command: those for a shell with the shell before them.
pub(crate) fn argv(config: &Config, command: &Command) -> Vec<String> {
    let text = match command {
        Command::Exec(words) => return words.clone(),
        Command::Shell(text) => text.clone(),
    };
    let mut words = match config.shell.as_slice() {
        [] => SHELL.map(str::to_owned).to_vec(),
        shell => shell.to_vec(),
    };
    words.push(text);
    words
}

/// Sets a variable where it is, or at the end.
pub(crate) fn set(env: &mut Vec<String>, name: &str, value: &str) {
    let variable = format!("{name}={value}");
    let prefix = format!("{name}=");
    match env.iter_mut().find(|known| known.starts_with(&prefix)) {
        Some(known) => *known = variable,
        None => env.push(variable),
    }
}

fn expanded(
    pairs: &[Pair],
    word: &dyn Fn(&str) -> Result<String>,
) -> Result<Vec<(String, String)>> {
    let pair = |pair: &Pair| Ok((word(&pair.name)?, word(&pair.value)?));
    pairs.iter().map(pair).collect()
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(" ")
}

fn healthcheck(health: &Health) -> Healthcheck {
    let test = match &health.test {
        HealthTest::None => vec!["NONE".to_owned()],
        HealthTest::Command(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        HealthTest::Command(Command::Exec(words)) => {
            [vec!["CMD".to_owned()], words.clone()].concat()
        }
    };
    Healthcheck {
        test,
        interval: health.interval_ns,
        timeout: health.timeout_ns,
        start_period: health.start_period_ns,
        start_interval: health.start_interval_ns,
        retries: health.retries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::parse;

    fn configured(text: &str) -> Result<(Config, Vec<String>)> {
        let file = parse("Dockerfile", format!("FROM x\n{text}").as_bytes()).unwrap();
        let mut config = Config {
            env: vec!["PATH=/bin".to_owned()],
            cmd: Some(vec!["base".to_owned()]),
            ..Config::default()
        };
        let mut scope = Scope::new('\\');
        scope.declare("arg", Some("value".to_owned()));
        let (mut cmd_set, mut told) = (false, Vec::new());
        for step in &file.stages[0].steps {
            told.extend(apply(
                &mut config,
                &mut scope,
                &step.instruction,
                &mut cmd_set,
            )?);
        }
        Ok((config, told))
    }

    #[test]
    fn variables_are_replaced_with_what_was_before_the_line() {
        let (config, told) =
            configured("ENV a=1 b=$a\nENV a=2 b=$a PATH=/x:$PATH\nLABEL l=\"$arg $b\"").unwrap();
        assert_eq!(config.env, ["PATH=/x:/bin", "a=2", "b=1"]);
        assert_eq!(config.labels["l"], "value 1");
        assert_eq!(told[2], "LABEL l=value 1");
    }

    #[test]
    fn an_entrypoint_resets_the_command_of_the_base() {
        let (config, told) = configured("ENTRYPOINT [\"e\"]").unwrap();
        assert_eq!((config.cmd, told[0].as_str()), (None, "ENTRYPOINT [\"e\"]"));
        let (config, _) = configured("CMD c\nENTRYPOINT e").unwrap();
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "c"]);
        let (config, _) = configured("SHELL [\"bash\", \"-ec\"]\nCMD c").unwrap();
        assert_eq!(config.cmd.unwrap(), ["bash", "-ec", "c"]);
    }

    #[test]
    fn the_rest_is_set() {
        let text = "EXPOSE 80 90-91/udp\nUSER $arg\nVOLUME /$arg\nSTOPSIGNAL SIGINT\n\
                    HEALTHCHECK --retries=2 CMD x\nCMD a \"b\"";
        let (config, told) = configured(text).unwrap();
        assert_eq!(told[0], "EXPOSE [80/tcp 90/udp 91/udp]");
        assert_eq!(told[5], r#"CMD ["/bin/sh" "-c" "a \"b\""]"#);
        assert!(config.args_escaped);
        assert_eq!(config.exposed_ports.len(), 3);
        assert_eq!(
            (config.user.as_str(), config.stop_signal.as_str()),
            ("value", "SIGINT")
        );
        assert!(config.volumes.contains("/value"));
        assert_eq!(config.healthcheck.unwrap().test, ["CMD-SHELL", "x"]);
        for bad in ["EXPOSE x", "VOLUME $none", "STOPSIGNAL foo", "ENV $none=1"] {
            configured(bad).unwrap_err();
        }
    }
}
