//! `hull context export` and `hull context import`: a context as a tar archive, which Docker's client reads and writes, too.
//!
//! What is imported is somebody else's: files of known names are taken from it, and nothing else.

use super::store::{Meta, TLS_FILES, TlsFiles, check_name};
use super::{describe, open, tls_of};
use crate::app::{Arity, Command};
use crate::error::{Error, IoContext, Result};
use crate::flags::Matches;
use crate::output;
use crate::session::Session;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use tar::{Archive, Builder, EntryType, Header};

/// Bytes of an archive that is imported.
const ARCHIVE_BYTES_MAX: u64 = 10 << 20;

/// What an archive is a multiple of; two empty ones end it.
const BLOCK_BYTES: usize = 512;

/// How a zip file begins.
const ZIP: &[u8] = b"PK\x03\x04";

pub(crate) const EXPORT: Command = Command {
    usage: "CONTEXT [FILE|-]",
    about: "Write a context, with its keys, to a tar archive (default CONTEXT.dockercontext; - is standard output)",
    aliases: &[],
    flags: &[],
    arity: Arity::Between(1, 2),
    interspersed: true,
    run: |session, matches| Box::pin(async move { export(session, matches) }),
};

pub(crate) const IMPORT: Command = Command {
    usage: "CONTEXT FILE|-",
    about: "Create a context from a tar archive",
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(async move { import(session, matches) }),
    ..EXPORT
};

fn export(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    let archive = pack(&describe(session, name)?, &tls_of(session, name)?);
    let archive = archive.during(|| "write a tar archive")?;
    let file = match matches.args.get(1).map(String::as_str) {
        Some("-") if std::io::stdout().is_terminal() => {
            return Err(Error::msg(
                "cowardly refusing to export to a terminal, specify a file path",
            ));
        }
        Some("-") => return output::write(&archive),
        Some(path) => path.to_owned(),
        None => format!("{name}.dockercontext"),
    };
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(&file);
    let written = opened.and_then(|mut opened| opened.write_all(&archive));
    written.during(|| format!("open {file}"))?;
    output::complain(&format!("Written file {file:?}"));
    Ok(())
}

fn pack(meta: &Meta, tls: &TlsFiles) -> std::io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |path: &str, kind: EntryType, mode: u32, content: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content)
    };
    add(
        "meta.json",
        EntryType::Regular,
        0o644,
        meta.json().as_bytes(),
    )?;
    if !tls.is_empty() {
        add("tls", EntryType::Directory, 0o700, &[])?;
        add("tls/docker", EntryType::Directory, 0o700, &[])?;
    }
    for (name, content) in tls {
        add(
            &format!("tls/docker/{name}"),
            EntryType::Regular,
            0o600,
            content,
        )?;
    }
    builder.into_inner()
}

fn import(session: &Session, matches: &Matches) -> Result<()> {
    let (name, file) = (&matches.args[0], matches.args[1].as_str());
    check_name(name)?;
    let store = open(session);
    if store.exists(name) {
        return Err(Error::msg(format!("context {name:?} already exists")));
    }
    let mut archive = Vec::new();
    let limit = ARCHIVE_BYTES_MAX + 1;
    let read = match file {
        "-" => std::io::stdin().take(limit).read_to_end(&mut archive),
        file => {
            std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut archive))
        }
    };
    let bytes = read.during(|| format!("open {file}"))?;
    if bytes as u64 > ARCHIVE_BYTES_MAX {
        return Err(Error::msg(format!(
            "{file}: larger than {ARCHIVE_BYTES_MAX} bytes"
        )));
    }
    let (mut meta, tls) = unpack(&archive).map_err(|why| Error::msg(format!("{file}: {why}")))?;
    name.clone_into(&mut meta.name);
    store.put(&meta, Some(&tls))?;
    output::line(name)?;
    output::complain(&format!("Successfully imported context {name:?}"));
    Ok(())
}

/// What an archive says of a context, and the files of its TLS.
fn unpack(archive: &[u8]) -> Result<(Meta, TlsFiles), String> {
    if archive.starts_with(ZIP) {
        return Err("a zip file is not supported: export to a tar archive".to_owned());
    }
    let bad = |error: std::io::Error| format!("no tar archive of a context: {error}");
    // Docker's client leaves the end of its archives away.
    let mut whole = archive.to_vec();
    whole.resize(
        archive.len().next_multiple_of(BLOCK_BYTES) + 2 * BLOCK_BYTES,
        0,
    );
    let mut meta = None;
    let mut tls = TlsFiles::new();
    for entry in Archive::new(&*whole).entries().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        if entry.header().entry_type() == EntryType::Directory {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(bad)?;
        let regular = entry.header().entry_type() == EntryType::Regular;
        let known = path
            .strip_prefix("tls/docker/")
            .filter(|file| TLS_FILES.contains(file));
        match (regular, path.as_str(), known) {
            (true, "meta.json", _) => {
                let parsed = serde_json::from_slice::<Meta>(&content);
                meta = Some(parsed.map_err(|error| format!("meta.json: {error}"))?);
            }
            (true, _, Some(file)) => {
                tls.insert(file.to_owned(), content);
            }
            _ => return Err(format!("{path:?} is nothing that a context has")),
        }
    }
    let meta = meta.ok_or("there is no meta.json in it: that is no context")?;
    meta.endpoint().map_err(|error| error.to_string())?;
    Ok((meta, tls))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::store::Endpoint;

    #[test]
    fn what_is_packed_is_unpacked_and_nothing_else_is() {
        let endpoint = Endpoint {
            host: "tcp://1.2.3.4:5".to_owned(),
            skip_tls_verify: false,
        };
        let meta = Meta::new("aa", &endpoint);
        let tls = TlsFiles::from([("key.pem".to_owned(), b"secret".to_vec())]);
        let archive = pack(&meta, &tls).unwrap();
        assert_eq!(unpack(&archive).unwrap(), (meta.clone(), tls.clone()));
        for name in ["../../x.pem", "x.pem", "key.pem/../../x"] {
            let mut builder = Builder::new(Vec::new());
            let mut header = Header::new_ustar();
            header.set_size(1);
            // The library refuses to write such a path, so it is written past it.
            header.as_mut_bytes()[..11].copy_from_slice(b"tls/docker/");
            header.as_mut_bytes()[11..11 + name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, &b"x"[..]).unwrap();
            let error = unpack(&builder.into_inner().unwrap()).unwrap_err();
            assert!(error.contains("nothing that a context has"), "{error}");
        }
        assert!(unpack(b"PK\x03\x04xx").unwrap_err().contains("zip"));
        assert!(unpack(&[0; 1024]).unwrap_err().contains("meta.json"));
        assert!(unpack(&[b'x'; 2048]).is_err());
    }
}
