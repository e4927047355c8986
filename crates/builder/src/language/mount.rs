//! `RUN --mount`: what a command sees besides its stage's files.

use super::suggest;

/// A mount of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is in the container; relative to the working directory unless absolute. Of secrets and agents `None` is
    /// their own place.
    pub target: Option<String>,
    /// What it is.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage, an image or a named context.
    Bind {
        /// Where they come from; the context without.
        from: Option<String>,
        /// Their path there.
        source: String,
        /// Writable; what is written is lost.
        writable: bool,
    },
    /// A directory that stays from build to build.
    Cache {
        /// Which; the target's path without.
        id: Option<String>,
        /// Not writable.
        read_only: bool,
        /// Who else may have it at the same time.
        sharing: CacheSharing,
        /// What it holds at first.
        from: Option<String>,
        /// The path of that.
        source: String,
        /// Mode, user and group of its directory when it is made.
        mode: u32,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Bytes, where limited.
        size: Option<u64>,
    },
    /// A file that is in no layer, or a variable.
    Secret {
        /// Which.
        id: String,
        /// The variable that has its content, instead of or besides a file.
        env: Option<String>,
        /// Fail where the client has not given it.
        required: bool,
        /// Mode, user and group of the file.
        mode: u32,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// The client's SSH agent.
    Ssh {
        /// Which of the client's agents.
        id: String,
        /// Without the agent the command fails; otherwise it runs without.
        required: bool,
        /// Mode, user and group of its socket.
        mode: u32,
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSharing {
    /// Everybody.
    Shared,
    /// Each command has one of its own.
    Private,
    /// One after the other.
    Locked,
}

impl Mount {
    /// Reads `type=cache,target=/x,…`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Options::read(text)?;
        let kind = options.take(&["type"]).unwrap_or_else(|| "bind".to_owned());
        let target = options.take(&["target", "dst", "destination"]);
        let needs_target = matches!(kind.as_str(), "bind" | "cache" | "tmpfs");
        if needs_target && target.as_deref().is_none_or(str::is_empty) {
            return Err(format!("the mount of type {kind} needs a target"));
        }
        let kind = match kind.as_str() {
            "bind" => bind(&mut options)?,
            "cache" => cache(&mut options)?,
            "tmpfs" => MountKind::Tmpfs {
                size: options
                    .take(&["size"])
                    .map(|text| size(&text))
                    .transpose()?,
            },
            "secret" => secret(&mut options, target.as_deref())?,
            "ssh" => ssh(&mut options)?,
            other => {
                let known = ["bind", "cache", "tmpfs", "secret", "ssh"];
                let hint = suggest::hint(other, known).map(|hint| format!(" ({hint})"));
                return Err(format!(
                    "unsupported mount type {other:?}{}",
                    hint.unwrap_or_default()
                ));
            }
        };
        match options.values.first() {
            None => Ok(Self { target, kind }),
            Some((name, _)) => Err(format!("unexpected key '{name}' in mount {text:?}")),
        }
    }

    /// The stage, image or context that it takes files from.
    pub fn from(&self) -> Option<&str> {
        match &self.kind {
            MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.as_deref(),
            _ => None,
        }
    }
}

fn bind(options: &mut Options) -> Result<MountKind, String> {
    let read_only = options.switch(&["ro", "readonly"])?;
    let writable = options.switch(&["rw", "readwrite"])?;
    Ok(MountKind::Bind {
        from: options.take(&["from"]),
        source: options
            .take(&["source", "src"])
            .unwrap_or_else(|| "/".to_owned()),
        writable: writable.unwrap_or(false) && !read_only.unwrap_or(false),
    })
}

fn cache(options: &mut Options) -> Result<MountKind, String> {
    let writable = options.switch(&["rw", "readwrite"])?;
    let read_only = options.switch(&["ro", "readonly"])?;
    let sharing = options.take(&["sharing"]);
    Ok(MountKind::Cache {
        id: options.take(&["id"]),
        read_only: read_only.unwrap_or(writable == Some(false)),
        sharing: match sharing.as_deref() {
            None | Some("shared") => CacheSharing::Shared,
            Some("private") => CacheSharing::Private,
            Some("locked") => CacheSharing::Locked,
            Some(other) => return Err(format!("unsupported sharing value {other:?}")),
        },
        from: options.take(&["from"]),
        source: options
            .take(&["source", "src"])
            .unwrap_or_else(|| "/".to_owned()),
        mode: options.mode(0o755)?,
        uid: options.number("uid")?,
        gid: options.number("gid")?,
    })
}

fn secret(options: &mut Options, target: Option<&str>) -> Result<MountKind, String> {
    let last = target.and_then(|target| target.rsplit('/').next());
    let id = options
        .take(&["id", "source", "src"])
        .or(last.map(str::to_owned));
    let env = options.take(&["env"]);
    if env.as_deref() == Some("") {
        return Err("the variable of a mount of type secret needs a name".to_owned());
    }
    Ok(MountKind::Secret {
        id: id
            .filter(|id| !id.is_empty())
            .ok_or("the mount of type secret needs an id")?,
        env,
        required: options.switch(&["required"])?.unwrap_or(false),
        mode: options.mode(0o400)?,
        uid: options.number("uid")?,
        gid: options.number("gid")?,
    })
}

fn ssh(options: &mut Options) -> Result<MountKind, String> {
    let id = options.take(&["id", "source", "src"]);
    Ok(MountKind::Ssh {
        id: id
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        required: options.switch(&["required"])?.unwrap_or(false),
        mode: options.mode(0o600)?,
        uid: options.number("uid")?,
        gid: options.number("gid")?,
    })
}

struct Options {
    values: Vec<(String, Option<String>)>,
}

impl Options {
    /// Fields of one line of CSV: a quoted field may hold commas.
    fn read(text: &str) -> Result<Self, String> {
        let mut fields = vec![String::new()];
        let mut quoted = false;
        for c in text.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                c => fields.last_mut().expect("never empty").push(c),
            }
        }
        if quoted {
            return Err(format!("a quote is not closed in mount {text:?}"));
        }
        let mut values: Vec<(String, Option<String>)> = Vec::new();
        for field in fields {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            let name = name.trim().to_ascii_lowercase();
            // Of several, the last one counts.
            values.retain(|(other, _)| *other != name);
            values.push((name, value));
        }
        Ok(Self { values })
    }

    fn entry(&mut self, names: &[&str]) -> Option<Option<String>> {
        let at = self
            .values
            .iter()
            .position(|(name, _)| names.contains(&name.as_str()))?;
        Some(self.values.remove(at).1)
    }

    /// The value of a key that has several names.
    fn take(&mut self, names: &[&str]) -> Option<String> {
        self.entry(names).map(Option::unwrap_or_default)
    }

    fn switch(&mut self, names: &[&str]) -> Result<Option<bool>, String> {
        match self.entry(names) {
            None => Ok(None),
            Some(None) => Ok(Some(true)),
            Some(Some(value)) => match value.as_str() {
                "true" | "1" => Ok(Some(true)),
                "false" | "0" => Ok(Some(false)),
                other => Err(format!("invalid value for {}: {other}", names[0])),
            },
        }
    }

    fn number(&mut self, name: &str) -> Result<u32, String> {
        let Some(text) = self.take(&[name]) else {
            return Ok(0);
        };
        text.parse()
            .map_err(|_| format!("invalid value {text:?} for {name}"))
    }

    fn mode(&mut self, default: u32) -> Result<u32, String> {
        let Some(text) = self.take(&["mode"]) else {
            return Ok(default);
        };
        let mode = u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777);
        mode.ok_or_else(|| format!("invalid value {text:?} for mode"))
    }
}

/// Bytes, with a unit or without: `64m`, `1g`, `1048576`.
fn size(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid value {text:?} for size");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(invalid()),
    };
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    number.checked_mul(1 << shift).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let bind = Mount::parse("target=/src,source=a,from=build,rw").unwrap();
        assert_eq!(bind.from(), Some("build"));
        assert!(matches!(bind.kind, MountKind::Bind { writable: true, .. }));
        let cache = Mount::parse("type=cache,\"target=/a,b\",sharing=locked,mode=0700,uid=5");
        let cache = cache.unwrap();
        assert_eq!(cache.target.as_deref(), Some("/a,b"));
        let MountKind::Cache {
            sharing, mode, uid, ..
        } = cache.kind
        else {
            panic!("{cache:?}")
        };
        assert_eq!((sharing, mode, uid), (CacheSharing::Locked, 0o700, 5));
        let last = Mount::parse("target=/a,target=/b").unwrap();
        assert_eq!(last.target.as_deref(), Some("/b"));
        let tmpfs = Mount::parse("type=tmpfs,dst=/t,size=2m").unwrap();
        assert_eq!(
            tmpfs.kind,
            MountKind::Tmpfs {
                size: Some(2 << 20)
            }
        );
        let secret = Mount::parse("type=secret,target=/run/x/key,required=true").unwrap();
        assert!(
            matches!(secret.kind, MountKind::Secret { ref id, required: true, .. } if id == "key")
        );
        let ssh = |id: &str, required, mode| MountKind::Ssh {
            id: id.to_owned(),
            required,
            mode,
            uid: 0,
            gid: 0,
        };
        let parsed = |text: &str| Mount::parse(text).unwrap().kind;
        assert_eq!(parsed("type=ssh"), ssh("default", false, 0o600));
        assert_eq!(
            parsed("type=ssh,id=k,required,mode=0644"),
            ssh("k", true, 0o644)
        );
    }

    #[test]
    fn bad_mounts_are_told() {
        for (text, expected) in [
            ("type=cahce,target=/x", "did you mean cache?"),
            ("type=bind", "needs a target"),
            ("type=cache", "needs a target"),
            ("type=secret", "needs an id"),
            ("type=secret,id=x,env=", "needs a name"),
            ("target=/a,foo=1", "unexpected key 'foo'"),
            ("type=cache,target=/a,sharing=x", "sharing"),
            ("type=tmpfs,target=/a,size=x", "size"),
            ("type=cache,target=/a,mode=9", "mode"),
            ("type=bind,target=\"/a", "quote"),
        ] {
            let error = Mount::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
