//! Users and groups by name, from a container's own `/etc/passwd` and `/etc/group`.
//!
//! Invariants: a word of digits is a number and never looked up as a name, one that is too large is an error; the files are
//! read through a [`Root`], only when regular, and bounded; a line with control characters or without a plain number is no
//! entry. Source: passwd(5), group(5), and Docker's rules for `USER` and `--user`.

use crate::error::{Doing, Error, Result};
use rustix::fs::{FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use std::path::Path;
use sys::Context;
use sys::root::Root;

/// The largest id Docker takes.
const ID_MAX: u32 = i32::MAX.cast_unsigned();
/// The largest passwd or group file read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// As many supplementary groups as the kernel takes (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65536;

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Home directory, where the passwd file has one.
    pub home: Option<String>,
}

/// Finds the user of `spec`: `""` (root), `user`, `uid`, each also with `:group` or `:gid`. With a group, the user's own
/// supplementary groups are left out. `groups` (names or numbers) are added in either case.
///
/// Errors: [`Error::Invalid`] for names that are not in the files and numbers beyond 2147483647.
pub fn resolve(root: &Root, spec: &str, groups: &[String]) -> Result<User> {
    let (user_word, group_word) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    if spec.matches(':').count() > 1 || spec.contains(char::is_control) {
        return Err(Error::invalid(format!("{spec:?} is not user:group")));
    }
    let passwd = read(root, "etc/passwd")?;
    let word = Word::parse(if user_word.is_empty() { "0" } else { user_word })?;
    let entry = passwd
        .lines()
        .filter_map(PasswdEntry::parse)
        .find(|entry| match word {
            Word::Number(number) => entry.uid == number,
            Word::Name(name) => entry.name == name,
        });
    let mut user = match (&entry, word) {
        (Some(entry), _) => User {
            uid: entry.uid,
            gid: entry.gid,
            additional_gids: Vec::new(),
            home: Some(entry.home)
                .filter(|home| !home.is_empty())
                .map(str::to_owned),
        },
        (None, Word::Number(uid)) => User {
            uid,
            ..User::default()
        },
        (None, Word::Name(name)) => {
            return Err(Error::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    };
    let group = read(root, "etc/group")?;
    match (group_word, &entry) {
        (Some(word), _) => user.gid = group_id(&group, word)?,
        (None, Some(entry)) => user.additional_gids = groups_of(&group, entry.name),
        (None, None) => {}
    }
    for word in groups {
        let gid = group_id(&group, word)?;
        if !user.additional_gids.contains(&gid) {
            user.additional_gids.push(gid);
        }
    }
    if user.additional_gids.len() > GROUPS_MAX {
        return Err(Error::invalid(format!(
            "more than {GROUPS_MAX} supplementary groups"
        )));
    }
    Ok(user)
}

/// The home directory of a user, where the passwd file has one.
pub(crate) fn home_of(root: &Root, uid: u32) -> Result<Option<String>> {
    let passwd = read(root, "etc/passwd")?;
    let entry = passwd
        .lines()
        .filter_map(PasswdEntry::parse)
        .find(|entry| entry.uid == uid);
    Ok(entry
        .map(|entry| entry.home)
        .filter(|home| !home.is_empty())
        .map(str::to_owned))
}

/// A user or group as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Word<'a> {
    fn parse(word: &'a str) -> Result<Self> {
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(word));
        }
        match word.parse() {
            Ok(number) if number <= ID_MAX => Ok(Self::Number(number)),
            _ => Err(Error::invalid(format!(
                "uids and gids must be in range 0-{ID_MAX}"
            ))),
        }
    }
}

/// A line of the passwd file.
#[derive(Debug, Clone, Copy)]
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.contains(char::is_control) {
            return None;
        }
        // name:password:uid:gid:gecos:home:shell
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        Some(Self {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or_default(),
        })
    }
}

/// A line of the group file: name, id, members.
fn group_entry(line: &str) -> Option<(&str, u32, &str)> {
    if line.contains(char::is_control) {
        return None;
    }
    // name:password:gid:members
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = id(fields.nth(1)?)?;
    Some((name, gid, fields.next().unwrap_or_default()))
}

fn group_id(group: &str, word: &str) -> Result<u32> {
    let name = match Word::parse(word)? {
        Word::Number(number) => return Ok(number),
        Word::Name(name) => name,
    };
    let mut entries = group.lines().filter_map(group_entry);
    let found = entries.find(|(other, ..)| *other == name);
    found.map(|(_, gid, _)| gid).ok_or_else(|| {
        Error::invalid(format!(
            "unable to find group {name}: no matching entries in group file"
        ))
    })
}

fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let mut gids = Vec::new();
    for (_, gid, members) in group.lines().filter_map(group_entry) {
        if members.split(',').any(|member| member == user) && !gids.contains(&gid) {
            gids.push(gid);
        }
    }
    gids
}

fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&id| id <= ID_MAX)
}

/// Reads a file of the container; one that is missing is empty.
fn read(root: &Root, path: &str) -> Result<String> {
    let doing = || format!("reading the container's /{path}");
    // Without NONBLOCK a fifo would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match root.open_at(Path::new(path), flags, Mode::empty()) {
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => {
            return Ok(String::new());
        }
        result => result.doing_with(doing)?,
    };
    let stat = rustix::fs::fstat(&fd).call(|| "fstat").doing_with(doing)?;
    // A file that is masked.
    if stat.st_rdev == makedev(1, 3)
        && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
    {
        return Ok(String::new());
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::invalid(format!(
            "the container's /{path} is not a regular file"
        )));
    }
    let mut bytes = Vec::new();
    let mut file = std::io::Read::take(std::fs::File::from(fd), FILE_BYTES_MAX + 1);
    std::io::Read::read_to_end(&mut file, &mut bytes)
        .call(|| "read")
        .doing_with(doing)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the container's /{path} exceeds {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        web:x:33:34:www:/var/www:/bin/sh\n\
        1000:x:7:7::/seven:/bin/sh\n\
        huge:x:4294967296:0::/:/bin/sh\n\
        negative:x:-1:0::/:/bin/sh\n\
        tab\tted:x:8:8::/:/bin/sh\n\
        short:x:9\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:web,other\nlog:x:5:web\nlog2:x:5:web\n2000:x:6:\n";

    fn root(passwd: &str, group: &str) -> (tempfile::TempDir, Root) {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        std::fs::write(tree.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(tree.path().join("etc/group"), group).unwrap();
        let root = Root::open(tree.path()).unwrap();
        (tree, root)
    }

    fn find(spec: &str, groups: &[&str]) -> Result<User> {
        let (_tree, root) = root(PASSWD, GROUP);
        let groups: Vec<_> = groups.iter().map(|group| (*group).to_owned()).collect();
        resolve(&root, spec, &groups)
    }

    fn user(uid: u32, gid: u32, additional_gids: &[u32], home: Option<&str>) -> User {
        User {
            uid,
            gid,
            additional_gids: additional_gids.to_vec(),
            home: home.map(Into::into),
        }
    }

    #[test]
    fn names_and_numbers_are_found_with_their_groups() {
        assert_eq!(find("", &[]).unwrap(), user(0, 0, &[], Some("/root")));
        assert_eq!(
            find("web", &[]).unwrap(),
            user(33, 34, &[4, 5], Some("/var/www"))
        );
        assert_eq!(
            find("33", &["adm", "99"]).unwrap(),
            user(33, 34, &[4, 5, 99], Some("/var/www"))
        );
        assert_eq!(
            find("web:log", &[]).unwrap(),
            user(33, 5, &[], Some("/var/www"))
        );
        assert_eq!(find("5000:77", &[]).unwrap(), user(5000, 77, &[], None));
        assert_eq!(find("web:", &[]).unwrap().gid, 34);
    }

    #[test]
    fn attack_02_a_number_is_never_a_name_and_never_overflows_to_root() {
        assert_eq!(find("1000", &[]).unwrap(), user(1000, 0, &[], None));
        assert_eq!(find("0:2000", &[]).unwrap().gid, 2000);
        for bad in [
            "4294967296",
            "2147483648",
            "18446744073709551616",
            "0:4294967296",
        ] {
            let error = find(bad, &[]).unwrap_err().to_string();
            assert_eq!(
                error, "uids and gids must be in range 0-2147483647",
                "{bad}"
            );
        }
    }

    #[test]
    fn attack_18_words_that_look_like_numbers_to_others_are_names() {
        for bad in [
            "+0", "-0", "0x0", " 0", "0 ", "٣", "1e3", "0:0:0", "a\nroot", ":+0",
        ] {
            assert!(find(bad, &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn attack_41_odd_lines_are_no_entries() {
        for bad in ["huge", "negative", "tab\tted", "short"] {
            assert!(find(bad, &[]).is_err(), "{bad:?}");
        }
        let error = find("nobody", &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "unable to find user nobody: no matching entries in passwd file"
        );
        let error = find("web", &["wheel"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "unable to find group wheel: no matching entries in group file"
        );
    }

    #[test]
    fn a_missing_file_is_empty_and_a_fifo_is_refused() {
        let tree = tempfile::tempdir().unwrap();
        let root = Root::open(tree.path()).unwrap();
        assert_eq!(resolve(&root, "7:8", &[]).unwrap(), user(7, 8, &[], None));
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        let fifo = tree.path().join("etc/passwd");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::from_raw_mode(0o600)).unwrap();
        assert!(resolve(&root, "7", &[]).is_err());
    }

    #[test]
    fn a_symlink_to_the_hosts_file_stays_inside() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/../../etc/passwd", tree.path().join("etc/passwd")).unwrap();
        let root = Root::open(tree.path()).unwrap();
        // It points at itself inside.
        assert!(resolve(&root, "root", &[]).is_err());
    }

    proptest! {
        #[test]
        fn only_an_entry_or_plain_digits_give_a_user(spec in "\\PC{0,12}") {
            if let Ok(found) = find(&spec, &[]) {
                let word = spec.split(':').next().unwrap();
                let numeric = word.parse::<u32>().is_ok_and(|uid| uid == found.uid);
                prop_assert!(numeric || word.is_empty() || word == "root" || word == "web");
            }
        }
    }
}
