//! A large image to load and pull: layers of the machine's own programs and libraries, as `docker save` writes it.

use crate::{Result, shell};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The image's reference.
pub(crate) const NAME: &str = "bench-image:latest";

/// What it is made of, as long as there is room.
const DIRECTORIES: [&str; 3] = ["usr/bin", "usr/lib", "usr/share"];
const BYTES_MAX: u64 = 500_000_000;

/// Its layers, of about the same size.
const LAYERS: u64 = 6;

/// The archive in `directory`, made the first time.
pub(crate) fn cached(directory: &Path) -> Result<PathBuf> {
    let archive = directory.join("image.tar");
    if archive.exists() {
        return Ok(archive);
    }
    shell::say("load: making an image of this machine's files");
    let work = directory.join("image");
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    write(&work)?;
    let done = std::fs::rename(work.join("archive"), &archive);
    done.map_err(|error| format!("{}: {error}", archive.display()))?;
    std::fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    Ok(archive)
}

/// Writes `archive` to `work`: a layer, a configuration and the manifest that ties them.
fn write(work: &Path) -> Result<()> {
    let save = |name: &str, bytes: &[u8]| {
        std::fs::write(work.join(name), bytes).map_err(|error| format!("{name}: {error}"))
    };
    let at = |name: &str| work.join(name).display().to_string();
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (number, files) in files().into_iter().enumerate() {
        let name = format!("layer-{number}.tar");
        save("files", files.join("\n").as_bytes())?;
        shell::run("tar", &["-C", "/", "-cf", &at(&name), "-T", &at("files")])?;
        diff_ids.push(format!("sha256:{}", digest(&work.join(&name))?));
        layers.push(name);
    }
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    save("config.json", config.to_string().as_bytes())?;
    let name = format!("{}.json", digest(&work.join("config.json"))?);
    let renamed = std::fs::rename(work.join("config.json"), work.join(&name));
    renamed.map_err(|error| format!("{name}: {error}"))?;
    let manifest = serde_json::json!([{"Config": name, "RepoTags": [NAME], "Layers": layers}]);
    save("manifest.json", manifest.to_string().as_bytes())?;
    let (directory, archive) = (work.display().to_string(), at("archive"));
    let mut arguments = vec!["-C", &directory, "-cf", &archive, &name, "manifest.json"];
    arguments.extend(layers.iter().map(String::as_str));
    shell::run("tar", &arguments)
}

/// Paths of files for each layer, without the leading slash, in the order of their names.
fn files() -> Vec<Vec<String>> {
    let mut layers: Vec<Vec<String>> = Vec::new();
    let mut pending: Vec<PathBuf> = DIRECTORIES.iter().rev().map(PathBuf::from).collect();
    let mut bytes = 0;
    while let Some(directory) = pending.pop() {
        // A directory may go while it is read.
        let entries = std::fs::read_dir(Path::new("/").join(&directory));
        let mut entries: Vec<_> = entries.into_iter().flatten().flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (directory.join(entry.file_name()), entry.file_type());
            match kind {
                Ok(kind) if kind.is_dir() => pending.push(path),
                Ok(kind) if kind.is_file() && bytes < BYTES_MAX => {
                    bytes += entry.metadata().map_or(0, |metadata| metadata.len());
                    if bytes > BYTES_MAX / LAYERS * layers.len() as u64 {
                        layers.push(Vec::new());
                    }
                    let layer = layers.last_mut();
                    layer
                        .into_iter()
                        .for_each(|layer| layer.push(path.display().to_string()));
                }
                _ => {}
            }
        }
    }
    layers
}

fn digest(path: &Path) -> Result<String> {
    let error = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = std::fs::File::open(path).map_err(error)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(error)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
