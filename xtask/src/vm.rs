//! `cargo xtask vm-test`: the tests that ask a kernel, on a Debian machine with systemd, cgroup v2 and AppArmor.
//!
//! The machine at hand has one kernel, one cgroup layout and often no systemd; the virtual one has what most hosts of
//! today have. Three parts are made and put together:
//!
//! | part | made by | kept in `target/vm` |
//! |---|---|---|
//! | the machine: root filesystem, kernel, initrd | `image`, with mmdebstrap, again only when its recipe changes | yes |
//! | the payload: test programs, the programs they call, this one, a plan of what to run | `payload`, with cargo | no |
//! | the run: QEMU on the host, this program as a service in the guest | `machine` and `guest`, which speak in `Line`s | console log |
//!
//! Invariant: the image is never written to (QEMU throws away what the guest writes), so every run begins with the same
//! machine. What does not run is named with its reason in [`plan::SKIPPED`], and said.

pub(crate) mod guest;
mod image;
mod machine;
mod payload;
mod plan;

use crate::{Result, shell};
use plan::Line;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the guest does not say in this time, it will not say any more: it runs one suite at most.
const SILENCE_MAX: Duration = plan::SUITE_TIMEOUT.saturating_add(Duration::from_secs(120));
/// How long the guest may take to its first word, under emulation on a loaded host.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
/// As much of the console's end as is shown after a failure.
const CONSOLE_LINES_SHOWN: usize = 40;

/// Makes what is missing, boots the machine, and fails when a suite does. `arguments`: `--accel kvm|tcg`, a suite's or a test's name.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let (accelerator, filter) = parse(arguments)?;
    if !rustix::process::geteuid().is_root() {
        return Err("a machine is made as root".to_owned());
    }
    let directory = root.join("target/vm");
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let image = image::ensure(&directory)?;
    let payload = payload::make(root, &directory, filter)?;
    let accelerator = match accelerator {
        Some(accelerator) => accelerator,
        None => machine::probe(&image),
    };
    shell::say(&format!("booting the machine ({})", accelerator.name()));
    let began = Instant::now();
    let console = directory.join("console.log");
    let mut machine = machine::boot(&image, &payload, accelerator, &console)?;
    let result = follow(&machine);
    machine.end();
    // The programs in it are in target, too.
    std::fs::remove_file(&payload).map_err(|error| format!("{}: {error}", payload.display()))?;
    shell::say(&format!("{} seconds", began.elapsed().as_secs()));
    let failed = result.map_err(|message| {
        shell::say(&console_tail(&console));
        format!("{message}; see {}", console.display())
    })?;
    for (suite, test, reason) in plan::SKIPPED {
        shell::say(&format!("not run: {suite} {test}: {reason}"));
    }
    if !failed.is_empty() {
        return Err(format!("failed in the machine: {}", failed.join(", ")));
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<(Option<machine::Accelerator>, Option<String>)> {
    let (mut accelerator, mut filter) = (None, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), &filter) {
            ("--accel", _) => {
                let name = words.next().map_or("", String::as_str);
                accelerator = Some(machine::Accelerator::named(name)?);
            }
            (option, _) if option.starts_with('-') => {
                return Err(format!("vm-test has no option {option}"));
            }
            (_, None) => filter = Some(word.clone()),
            (_, Some(_)) => return Err("vm-test takes one name at most".to_owned()),
        }
    }
    Ok((accelerator, filter))
}

/// Repeats what the guest says until it is done; the names of the suites that failed.
fn follow(machine: &machine::Machine) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    let mut patience = BOOT_TIMEOUT;
    loop {
        let line = machine.next_line(std::mem::replace(&mut patience, SILENCE_MAX))?;
        match line {
            Line::Begin { suite } => shell::say(&format!("\n     Running {suite}")),
            Line::Output { text } => shell::say(&text),
            Line::End {
                suite,
                failure: Some(failure),
            } => {
                shell::say(&format!("{suite}: {failure}"));
                failed.push(suite);
            }
            Line::End { failure: None, .. } => {}
            Line::Done => return Ok(failed),
        }
    }
}

fn console_tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_and_an_accelerator_are_taken() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let (accelerator, filter) = parse(&words("--accel tcg limits")).unwrap();
        assert_eq!(accelerator, Some(machine::Accelerator::Tcg));
        assert_eq!(filter.as_deref(), Some("limits"));
        for bad in ["--accel", "--accel xen", "--fast", "one two"] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }
}
