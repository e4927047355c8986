//! `NAME=value` pairs: environment, labels, options, sysctls, filters, and files of them.

use crate::error::{Error, IoContext, Result};
use api_types::Filters;
use std::collections::BTreeMap;

/// The largest file of variables or labels that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// `--env`.
pub(crate) fn check_env(text: &str) -> Result<(), String> {
    match text.starts_with('=') || text.is_empty() {
        true => Err(format!("invalid environment variable: {text}")),
        false => Ok(()),
    }
}

/// `--label`.
pub(crate) fn check_label(text: &str) -> Result<(), String> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    let name = name.trim_start_matches([' ', '\t']);
    match () {
        () if name.is_empty() => Err(format!("invalid label '{text}': empty name")),
        () if name.contains([' ', '\t']) => Err(format!("label '{name}' contains whitespaces")),
        () => Ok(()),
    }
}

/// `--sysctl`: only those of a namespace.
pub(crate) fn check_sysctl(text: &str) -> Result<(), String> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    match text.split_once('=') {
        Some((name, _))
            if IPC.contains(&name)
                || name.starts_with("net.")
                || name.starts_with("fs.mqueue.") =>
        {
            Ok(())
        }
        _ => Err(format!("sysctl '{text}' is not allowed")),
    }
}

/// `--filter`.
pub(crate) fn check_filter(text: &str) -> Result<(), String> {
    match text.is_empty() || text.contains('=') {
        true => Ok(()),
        false => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

/// All values of `--filter`.
pub(crate) fn filters(values: &[String]) -> Filters {
    let mut filters = Filters::default();
    for (name, value) in values.iter().filter_map(|text| text.split_once('=')) {
        filters.add(name.trim().to_lowercase(), value.trim());
    }
    filters
}

/// Pairs as a map; a name without a value has an empty one, and the last one of a name wins.
pub(crate) fn map<T: AsRef<str>>(pairs: &[T]) -> BTreeMap<String, String> {
    let pair = |text: &T| match text.as_ref().split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.as_ref().to_owned(), String::new()),
    };
    pairs.iter().map(pair).collect()
}

/// The variables of `--env-file` and `--env`, in order; of the same name in `--env` the last one. A name without a value has
/// the value of this process' environment, or in a file none at all without one.
pub(crate) fn environment(files: &[String], values: &[String]) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in files {
        for line in lines(path)? {
            match line.split_once('=') {
                Some(_) => variables.push(line),
                None => variables.extend(inherited(&line)),
            }
        }
    }
    let name = |text: &str| {
        text.split_once('=')
            .map_or(text, |(name, _)| name)
            .to_owned()
    };
    let mut last: Vec<(String, String)> = Vec::new();
    for value in values {
        let variable = match value.contains('=') {
            true => value.clone(),
            false => inherited(value).unwrap_or_else(|| value.clone()),
        };
        match last.iter_mut().find(|(known, _)| *known == name(value)) {
            Some((_, old)) => *old = variable,
            None => last.push((name(value), variable)),
        }
    }
    variables.extend(last.into_iter().map(|(_, variable)| variable));
    Ok(variables)
}

fn inherited(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| format!("{name}={value}"))
}

/// The labels of `--label-file` and `--label`.
pub(crate) fn labels(files: &[String], values: &[String]) -> Result<BTreeMap<String, String>> {
    let mut pairs = Vec::new();
    for path in files {
        pairs.extend(lines(path)?);
    }
    pairs.extend(values.iter().cloned());
    Ok(map(&pairs))
}

/// The lines of a file of pairs: no comments, no empty lines, no leading space.
fn lines(path: &str) -> Result<Vec<String>> {
    let bytes = read_limited(path)?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(_) => return Err(Error::msg(format!("{path}: not UTF-8"))),
    };
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() || name.contains([' ', '\t']) {
            let number = number + 1;
            return Err(Error::msg(format!(
                "{path}: line {number}: {name:?} is not a variable's name"
            )));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

/// Reads a whole file of text that a user wrote.
pub(crate) fn read_limited(path: &str) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).during(|| format!("open {path}"))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .during(|| format!("read {path}"))?;
    match u64::try_from(bytes.len()) {
        Ok(0..=FILE_BYTES_MAX) => Ok(bytes),
        _ => Err(Error::msg(format!(
            "{path}: larger than {FILE_BYTES_MAX} bytes"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn environment_from_files_flags_and_this_process() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "\u{feff}# comment\n\n  A=1 2 \nHULL_TEST_UNSET\nPATH\nB=\"x\"\r\n"
        )
        .unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let values: Vec<String> = ["C=1", "D=a=b", "C=2", "HULL_TEST_UNSET", "PATH"]
            .map(str::to_owned)
            .to_vec();
        let path_variable = format!("PATH={}", std::env::var("PATH").unwrap());
        assert_eq!(
            environment(&[path], &values).unwrap(),
            [
                "A=1 2 ",
                &path_variable,
                "B=\"x\"",
                "C=2",
                "D=a=b",
                "HULL_TEST_UNSET",
                &path_variable
            ]
        );
    }

    #[test]
    fn a_broken_file_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "A=1\nB C=2\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let error = environment(std::slice::from_ref(&path), &[])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("{path}: line 2: \"B C\" is not a variable's name")
        );
        assert!(environment(&["/nonexistent/x".to_owned()], &[]).is_err());
        assert!(labels(&["/dev/zero".to_owned()], &[]).is_err());
    }

    #[test]
    fn checks() {
        assert!(check_env("=x").is_err() && check_env("").is_err() && check_env("A").is_ok());
        assert!(
            check_label("=x").is_err()
                && check_label("a b=c").is_err()
                && check_label("a=b c").is_ok()
        );
        assert!(
            check_sysctl("net.x=1").is_ok()
                && check_sysctl("vm.x=1").is_err()
                && check_sysctl("net.x").is_err()
        );
        assert!(check_filter("a").is_err() && check_filter("a=b").is_ok());
        assert_eq!(
            filters(&["Label = a=b ".into()]).to_query().unwrap(),
            r#"{"label":{"a=b":true}}"#
        );
    }
}
