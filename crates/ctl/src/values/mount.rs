//! `--mount type=bind|volume|tmpfs,source=…,target=…[,readonly][,tmpfs-size=…]`.

use cluster_pb::types::v1::Mount;
use cluster_pb::types::v1::mount::Kind;

use super::{amount, shown};

#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    read_only: bool,
    size: Option<u64>,
}

pub fn mount(text: &str) -> Result<Mount, String> {
    let Fields { kind, source, target, read_only, size } = fields(text)?;
    let target = target.filter(|target| !target.is_empty());
    let target = target.ok_or("target= is missing: say where in the container it goes")?;
    if !target.starts_with('/') {
        return Err(format!("target `{}` is not an absolute path", shown(target)));
    }
    let source = source.unwrap_or_default();
    let kind = match kind.unwrap_or("volume") {
        "bind" => Kind::Bind,
        "volume" => Kind::Volume,
        "tmpfs" => Kind::Tmpfs,
        other => {
            return Err(format!("type `{}` is unknown; use bind, volume or tmpfs", shown(other)));
        }
    };
    match kind {
        Kind::Bind if !source.starts_with('/') => {
            return Err("a bind needs source= with an absolute path of the node".to_owned());
        }
        Kind::Volume if source.is_empty() => {
            return Err("a volume needs source= with its name".to_owned());
        }
        Kind::Volume if source.contains('/') => {
            return Err(format!(
                "`{}` is not a volume's name; for a path of the node use type=bind",
                shown(source)
            ));
        }
        Kind::Tmpfs if !source.is_empty() => {
            return Err("a tmpfs has no source: leave source= out".to_owned());
        }
        Kind::Bind | Kind::Volume if size.is_some() => {
            return Err("tmpfs-size= is for type=tmpfs only".to_owned());
        }
        _ => {}
    }
    Ok(Mount {
        kind: kind.into(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
        size_bytes: size.unwrap_or(0),
    })
}

fn fields(text: &str) -> Result<Fields<'_>, String> {
    let mut fields = Fields::default();
    for pair in text.split(',') {
        let (key, value) = match pair.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (pair, None),
        };
        let needed = || value.ok_or_else(|| format!("`{}` needs a value: {0}=…", shown(key)));
        match key.trim() {
            "type" => fields.kind = Some(needed()?),
            "source" | "src" => fields.source = Some(needed()?),
            "target" | "dst" | "destination" => fields.target = Some(needed()?),
            "readonly" | "ro" => {
                fields.read_only = match value {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(other) => {
                        return Err(format!("readonly is true or false, not `{}`", shown(other)));
                    }
                };
            }
            "tmpfs-size" => fields.size = Some(amount::bytes(needed()?)?),
            _ => {
                return Err(format!(
                    "`{}` is unknown; use type=, source=, target=, readonly, tmpfs-size=",
                    shown(key)
                ));
            }
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds() {
        let bind = mount("type=bind,source=/srv,target=/data,readonly").unwrap();
        assert_eq!((bind.kind(), bind.source.as_str(), bind.read_only), (Kind::Bind, "/srv", true));
        let volume = mount("src=db,dst=/data").unwrap();
        assert_eq!((volume.kind(), volume.source.as_str()), (Kind::Volume, "db"));
        let tmpfs = mount("type=tmpfs,target=/tmp,tmpfs-size=16M").unwrap();
        assert_eq!((tmpfs.kind(), tmpfs.size_bytes), (Kind::Tmpfs, 16 << 20));
    }

    #[test]
    fn refusals_say_what_to_write() {
        let said = |text: &str| mount(text).unwrap_err();
        assert!(said("type=nfs,target=/x").contains("bind, volume or tmpfs"));
        assert!(said("type=bind,source=/x").contains("target= is missing"));
        assert!(said("type=bind,source=x,target=/x").contains("absolute path"));
        assert!(said("type=volume,source=/x,target=/x").contains("type=bind"));
        assert!(said("type=volume,target=/x").contains("name"));
        assert!(said("type=tmpfs,source=x,target=/x").contains("no source"));
        assert!(said("type=bind,source=/x,target=/x,tmpfs-size=1M").contains("type=tmpfs"));
        assert!(said("type=bind,source=/x,target=x").contains("absolute"));
        assert!(said("/x:/y").contains("unknown"));
        assert!(said("type=bind,source=/x,target=/x,readonly=maybe").contains("true or false"));
    }
}
