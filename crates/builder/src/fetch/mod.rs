//! Files and trees from addresses: what ADD names, and contexts that are not the client's.
//!
//! Everything is fetched into a private directory, and read from there as any other untrusted context. Credentials of a request
//! are secrets of the build; they are sent to the host that they are for, and to nobody a redirect leads to.

mod git;

pub use git::Repository;

use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::language::DOCKERFILE_BYTES_MAX;
use crate::request::Client;
use engine::Engine;
use engine::images::registry::Download;
use images::{archive, copy};
use oci::Digest;
use std::fs::{File, FileTimes, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The mode of what came over HTTP, where nothing else is said.
const FILE_MODE: u32 = 0o600;
/// The name of what has none in its URL.
pub(crate) const NAMELESS: &str = "__unnamed__";

/// Something that is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A file, by its URL of http or https.
    Http(String),
    /// A repository, or a directory in it.
    Git(Repository),
}

impl Address {
    /// Reads an address; `None` where a text is a path.
    ///
    /// # Errors
    /// An address that is malformed.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        if let Some(repository) = Repository::parse(text)? {
            return Ok(Some(Self::Git(repository)));
        }
        let is_http = text.starts_with("http://") || text.starts_with("https://");
        Ok(is_http.then(|| Self::Http(text.to_owned())))
    }
}

/// A file that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The directory that it is in, alone.
    pub files: Context,
    /// Its name; [`NAMELESS`] where its URL says none.
    pub name: String,
}

/// Fetches for one build.
#[derive(Debug, Clone, Copy)]
pub struct Fetcher<'a> {
    /// The engine, whose proxies and certificates count.
    pub engine: &'a Engine,
    /// The engine's runtime.
    pub handle: &'a Handle,
    /// The client, which may have secrets for hosts.
    pub client: &'a dyn Client,
    /// Becomes true when the build is to end.
    pub stop: &'a watch::Receiver<bool>,
}

impl Fetcher<'_> {
    fn check_stop(&self) -> Result<()> {
        match *self.stop.borrow() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Fetches a file.
    ///
    /// # Errors
    /// A server that cannot be reached or has it not, another digest than `checksum`.
    pub fn file(&self, url: &str, checksum: Option<&Digest>) -> Result<Fetched> {
        let name = name_of(url);
        let files = Context::empty(self.engine.images())?;
        let path = files.path().join(&name);
        let doing = || format!("fetch {}", shown(url));
        let authorization = self.authorization(url)?;
        let begun = self.engine.download(url, authorization.as_deref());
        let download = self.wait(begun)?.doing(doing)?;
        let modified = download.modified.unwrap_or(SystemTime::UNIX_EPOCH);
        let mut file = File::create_new(&path).doing(doing)?;
        self.content(download, &mut file).doing(doing)??;
        file.set_permissions(Permissions::from_mode(FILE_MODE))
            .doing(doing)?;
        file.set_times(FileTimes::new().set_modified(modified))
            .doing(doing)?;
        if let Some(wanted) = checksum {
            let stop = || *self.stop.borrow();
            let found = copy::digest(files.root(), Path::new(&name), &stop).doing(doing)?;
            if found != *wanted {
                return Err(Error::Invalid(format!(
                    "digest mismatch {found}: {wanted} was asked for of {}",
                    shown(url)
                )));
            }
        }
        Ok(Fetched { files, name })
    }

    /// Fetches what a build is made of, and the Dockerfile where the address is that of one: a repository, an archive, or a
    /// Dockerfile alone.
    ///
    /// # Errors
    /// A text that is no address; as [`Fetcher::file`] and [`Fetcher::repository`].
    pub fn context(&self, text: &str) -> Result<(Context, Option<Vec<u8>>)> {
        let text = match text.strip_prefix("github.com/") {
            Some(rest) if !rest.contains(".git") => {
                let (path, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
                format!("https://github.com/{path}.git{fragment}")
            }
            Some(_) => format!("https://{text}"),
            None => text.to_owned(),
        };
        let url = match Address::parse(&text)? {
            Some(Address::Git(repository)) => {
                return Ok((self.repository(&repository, false)?, None));
            }
            Some(Address::Http(url)) => url,
            None => {
                let text = format!("{text:?} is no address of a repository, archive or Dockerfile");
                return Err(Error::Invalid(text));
            }
        };
        let fetched = self.file(&url, None)?;
        let path = fetched.files.path().join(&fetched.name);
        let open = || File::open(&path).doing(|| "open what was fetched".to_owned());
        let doing = || format!("read {}", shown(&url));
        if archive::is_archive(open()?).doing(doing)? {
            return Ok((Context::unpack(self.engine.images(), open()?)?, None));
        }
        let name = Path::new(&fetched.name);
        let text = fetched.files.read(name, DOCKERFILE_BYTES_MAX)?;
        Ok((Context::empty(self.engine.images())?, text))
    }

    /// The outer result is the disk's.
    fn content(&self, mut download: Download, file: &mut File) -> std::io::Result<Result<()>> {
        loop {
            let piece = match self.wait(download.next()) {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => {
                    let failed = Err(images::Error::from(error));
                    return Ok(failed.doing(|| "read what was fetched".to_owned()));
                }
                Err(error) => return Ok(Err(error)),
            };
            match piece {
                Some(piece) => file.write_all(&piece)?,
                None => return Ok(Ok(())),
            }
        }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let mut stop = self.stop.clone();
        self.handle.block_on(async {
            tokio::select! {
                done = work => Ok(done),
                Ok(_) = stop.wait_for(|stopped| *stopped) => Err(Error::Cancelled),
            }
        })
    }

    /// The header that a build's secrets have for a host, by docker/dockerfile's names of them.
    fn authorization(&self, url: &str) -> Result<Option<String>> {
        let Some(host) = host_of(url) else {
            return Ok(None);
        };
        let secret = |kind: &str| {
            let id = format!("{kind}_{host}");
            let text = self.client.secret(&id)?.map(String::from_utf8).transpose();
            text.map_err(|_| Error::Invalid(format!("the secret {id} is no text")))
        };
        if let Some(header) = secret("HTTP_AUTH_HEADER")? {
            return Ok(Some(header.trim().to_owned()));
        }
        let token = secret("HTTP_AUTH_TOKEN")?;
        Ok(token.map(|token| format!("Bearer {}", token.trim())))
    }
}

/// The host of a URL, without its port.
fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    Some(host.rsplit_once(':').map_or(host, |(host, _)| host))
}

/// A URL without its query and its password: those may be secret.
pub(crate) fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => plain.to_owned(),
    }
}

/// The name that a file gets of its URL; [`NAMELESS`] where that says none.
pub(crate) fn name_of(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let path = plain.split_once("://").map_or(plain, |(_, rest)| rest);
    let last = match path.split_once('/') {
        Some((_, path)) => path.rsplit('/').next().unwrap_or_default(),
        None => "",
    };
    let name = decoded(last).unwrap_or_default();
    let is_name = !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']);
    match is_name {
        true => name,
        false => NAMELESS.to_owned(),
    }
}

/// A part of a path with its `%41` replaced; `None` where that is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_names_of_their_urls() {
        for (url, name) in [
            ("http://h/a/b.tar?x=/c", "b.tar"),
            ("http://h/a%20b", "a b"),
            ("http://h", NAMELESS),
            ("http://h/", NAMELESS),
            ("http://h/a/..", NAMELESS),
            ("http://h/%2e%2e%2fetc", NAMELESS),
            ("http://h/a%00", NAMELESS),
        ] {
            assert_eq!(name_of(url), name, "{url}");
        }
    }

    #[test]
    fn secrets_of_urls_are_not_shown() {
        assert_eq!(shown("https://u:p@h:1/a?token=x#y"), "https://h:1/a");
        assert_eq!(host_of("https://u:p@h:1/a?b"), Some("h"));
        assert_eq!(host_of("https://h"), Some("h"));
    }

    #[test]
    fn paths_are_no_addresses() {
        for path in ["a", "./http", "ftp://h/x", "a.git"] {
            assert_eq!(Address::parse(path).unwrap(), None, "{path}");
        }
        let parsed = Address::parse("http://h/x").unwrap();
        assert_eq!(parsed, Some(Address::Http("http://h/x".to_owned())));
    }
}
