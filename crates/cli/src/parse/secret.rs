//! `--secret id=…,src=…`: short for a mount of type `secret`.

use crate::go::csv;
use crate::parse::volume;
use api_types::{Mount, SecretOptions};

/// Where secrets are in a container unless another place is named.
const DIRECTORY: &str = "/run/secrets";

/// Reads one secret: `id`, `src`, `target`, `uid`, `gid`, `mode` (octal).
pub(crate) fn parse(text: &str) -> Result<Mount, String> {
    let (mut id, mut source, mut target) = (String::new(), String::new(), String::new());
    let mut options = SecretOptions::default();
    for field in csv::record(text)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        let number = |radix| {
            u32::from_str_radix(value, radix)
                .map_err(|_| format!("invalid value for {key}: {value}"))
        };
        match key {
            "id" => value.clone_into(&mut id),
            "src" | "source" => {
                source = volume::absolute(value).map_err(|error| error.to_string())?
            }
            "target" | "dst" | "destination" => value.clone_into(&mut target),
            "uid" => options.uid = number(10)?,
            "gid" => options.gid = number(10)?,
            "mode" => options.mode = Some(number(8)?),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if source.is_empty() {
        return Err("a secret needs a source: src=FILE".to_owned());
    }
    if target.is_empty() {
        let name = match id.as_str() {
            "" => source.rsplit('/').next().unwrap_or_default(),
            id => id,
        };
        target = format!("{DIRECTORY}/{name}");
    } else if !target.starts_with('/') {
        target = format!("{DIRECTORY}/{target}");
    }
    Ok(Mount {
        kind: "secret".to_owned(),
        source,
        target,
        read_only: true,
        secret_options: Some(options).filter(|options| *options != SecretOptions::default()),
        ..Mount::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_place_of_its_own() {
        let target = |text: &str| parse(text).unwrap().target;
        assert_eq!(target("id=key,src=/k"), "/run/secrets/key");
        assert_eq!(target("src=/a/token"), "/run/secrets/token");
        assert_eq!(target("src=/k,target=db/pass"), "/run/secrets/db/pass");
        assert_eq!(target("src=/k,target=/etc/pass"), "/etc/pass");
        let owned = parse("src=/k,uid=5,mode=0400")
            .unwrap()
            .secret_options
            .unwrap();
        assert_eq!((owned.uid, owned.gid, owned.mode), (5, 0, Some(0o400)));
        for bad in ["id=x", "src", "src=/k,mode=9", "src=/k,color=red"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
