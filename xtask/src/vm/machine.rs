//! The host's side of a run: QEMU, its accelerator, and what the guest says on its virtio port.

use super::image::Image;
use super::plan::Line;
use crate::{Result, shell};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
const MEMORY: &str = "4G";
const CPUS: &str = "2";
/// The port's name in the guest, below `/dev/virtio-ports`.
pub(super) const PORT: &str = "hull.results";
const KERNEL_ARGUMENTS: &str = "root=/dev/vda rw console=ttyS0 panic=-1 quiet \
    systemd.unified_cgroup_hierarchy=1 systemd.show_status=1 apparmor=1 security=apparmor";

/// A kernel without a root filesystem panics and ends within this time on a virtual CPU that runs at all.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long QEMU may take to end once the guest is done.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// What executes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The kernel's virtual machines.
    Kvm,
    /// QEMU's emulation, ten to twenty times slower.
    Tcg,
}

impl Accelerator {
    /// The one with a name.
    pub(super) fn named(name: &str) -> Result<Self> {
        match name {
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(format!("--accel takes kvm or tcg, not {name:?}")),
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
        }
    }
}

/// KVM where it works. That its device is there says little: nested ones are known to hang.
pub(super) fn probe(image: &Image) -> Accelerator {
    if !Path::new("/dev/kvm").exists() {
        return Accelerator::Tcg;
    }
    let mut qemu = shell::quiet(QEMU);
    qemu.args(Accelerator::Kvm.arguments())
        .args(["-m", "512", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-append", "panic=-1"])
        .arg("-kernel")
        .arg(&image.kernel);
    let Ok(mut child) = qemu.spawn() else {
        return Accelerator::Tcg;
    };
    if ends(&mut child, PROBE_TIMEOUT) {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    }
}

/// Waits for a child to end by itself and well; one that does not is killed.
fn ends(child: &mut Child, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(POLL_INTERVAL),
            Ok(Some(status)) => return status.success(),
            Err(_) => break,
        }
    }
    // Either may fail only when it has ended meanwhile.
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// A running machine; it is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Machine {
    qemu: Child,
    lines: Receiver<Result<Line>>,
}

/// Boots the image with the payload as its second disk; the console goes to a file.
pub(super) fn boot(
    image: &Image,
    payload: &Path,
    accelerator: Accelerator,
    console: &Path,
) -> Result<Machine> {
    let drive = |path: &Path| format!("file={},format=raw,if=virtio,snapshot=on", path.display());
    let mut command = Command::new(QEMU);
    command
        .args(accelerator.arguments())
        .args([
            "-m",
            MEMORY,
            "-smp",
            CPUS,
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", KERNEL_ARGUMENTS])
        .args(["-drive", &drive(&image.disk), "-drive", &drive(payload)])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args([
            "-device",
            "virtio-serial-pci",
            "-chardev",
            "stdio,id=results,signal=off",
        ])
        .arg("-device")
        .arg(format!("virtserialport,chardev=results,name={PORT}"))
        .args(["-device", "virtio-rng-pci"])
        // The end of its standard input would be the end of the port.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut qemu = command
        .spawn()
        .map_err(|error| format!("cannot run {QEMU}: {error}"))?;
    let stdout = qemu.stdout.take().expect("it was asked for");
    Ok(Machine {
        qemu,
        lines: listen(stdout),
    })
}

fn listen(stdout: ChildStdout) -> Receiver<Result<Line>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let line = line
                .map_err(|error| format!("listening to the guest: {error}"))
                .and_then(|text| {
                    serde_json::from_str(&text).map_err(|_| format!("the guest says {text:?}"))
                });
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Machine {
    /// What the guest says next.
    pub(super) fn next_line(&self, timeout: Duration) -> Result<Line> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = timeout.as_secs();
                Err(format!("the guest has said nothing for {seconds} seconds"))
            }
            Err(RecvTimeoutError::Disconnected) => Err("the machine went off".to_owned()),
        }
    }

    /// Waits a while for the guest to power off, then ends it.
    pub(super) fn end(&mut self) {
        ends(&mut self.qemu, END_TIMEOUT);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has usually ended.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_has_a_name() {
        for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
            assert_eq!(Accelerator::named(accelerator.name()), Ok(accelerator));
        }
        assert!(Accelerator::named("").is_err());
    }

    #[test]
    fn one_that_hangs_is_killed() {
        let mut sleeper = shell::quiet("sleep").arg("600").spawn().unwrap();
        assert!(!ends(&mut sleeper, Duration::ZERO));
        assert!(sleeper.try_wait().unwrap().is_some());
        assert!(ends(
            &mut shell::quiet("true").spawn().unwrap(),
            END_TIMEOUT
        ));
    }
}
