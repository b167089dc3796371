//! `--publish [PUBLISHED:]TARGET[/tcp]`, or
//! `published=…,target=…[,protocol=tcp][,mode=ingress|host]`.

use cluster_pb::types::v1::PortSpec;

use super::shown;

pub fn publish(text: &str) -> Result<PortSpec, String> {
    if text.contains('=') { long(text) } else { short(text) }
}

fn short(text: &str) -> Result<PortSpec, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    check_protocol(protocol)?;
    let parts: Vec<&str> = ports.split(':').collect();
    match parts.as_slice() {
        [target] => Ok(PortSpec { published: 0, target: port(target)?, host: false }),
        [published, target] => {
            Ok(PortSpec { published: port(published)?, target: port(target)?, host: false })
        }
        _ => Err(format!(
            "`{}` names an address; ports are published on every worker: write PUBLISHED:TARGET",
            shown(text)
        )),
    }
}

fn long(text: &str) -> Result<PortSpec, String> {
    let (mut published, mut target, mut host) = (0, None, false);
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key.trim() {
            "published" => published = port(value)?,
            "target" => target = Some(port(value)?),
            "protocol" => check_protocol(value)?,
            "mode" => {
                host = match value {
                    "ingress" => false,
                    "host" => true,
                    _ => {
                        return Err(format!(
                            "mode `{}` is unknown; use mode=ingress (every worker) or mode=host \
                             (the task's own node)",
                            shown(value)
                        ));
                    }
                }
            }
            _ => {
                return Err(format!(
                    "`{}` is unknown; use published=, target=, protocol=tcp, mode=ingress|host",
                    shown(key)
                ));
            }
        }
    }
    let target = target.ok_or_else(|| "target= is missing".to_owned())?;
    if host && published == 0 {
        return Err(
            "mode=host needs published=, such as mode=host,published=8080,target=80".to_owned()
        );
    }
    Ok(PortSpec { published, target, host })
}

/// One port, as `--publish-rm` names it.
pub fn port(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(0) => Err(
            "0 is not a port; use 1-65535, or leave the published port out and the managers choose"
                .to_owned(),
        ),
        Ok(port @ 1..=65_535) => Ok(port),
        Ok(port) => Err(format!("{port} is not a port; use 1-65535")),
        Err(_) if text.contains('-') && text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
            Err(format!("`{}` is a range; publish each port by itself", shown(text)))
        }
        Err(_) => Err(format!("`{}` is not a port; use 1-65535", shown(text))),
    }
}

fn check_protocol(protocol: &str) -> Result<(), String> {
    match protocol {
        "tcp" => Ok(()),
        "udp" | "sctp" => Err(format!("{protocol} ports cannot be published yet; only tcp can")),
        other => Err(format!("protocol `{}` is unknown; only tcp can be published", shown(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(published: u32, target: u32) -> Result<PortSpec, String> {
        Ok(PortSpec { published, target, host: false })
    }

    #[test]
    fn both_forms_say_the_same() {
        assert_eq!(publish("80"), spec(0, 80));
        assert_eq!(publish("8080:80"), spec(8080, 80));
        assert_eq!(publish("8080:80/tcp"), spec(8080, 80));
        assert_eq!(publish("published=8080,target=80,protocol=tcp,mode=ingress"), spec(8080, 80));
        assert_eq!(publish("target=80"), spec(0, 80));
        let host = PortSpec { published: 8080, target: 80, host: true };
        assert_eq!(publish("mode=host,published=8080,target=80"), Ok(host));
    }

    #[test]
    fn refusals_say_what_to_write() {
        let said = |text: &str| publish(text).unwrap_err();
        assert!(said("0:80").contains("1-65535"));
        assert!(said("70000:80").contains("70000 is not a port"));
        assert!(said("80:0").contains("0 is not a port"));
        assert!(said("-1").contains("not a port") || said("-1").contains("range"));
        assert!(said("53:53/udp").contains("only tcp"));
        assert!(said("127.0.0.1:80:80").contains("every worker"));
        assert!(said("8000-8010:80").contains("range"));
        assert!(said("published=80").contains("target"));
        assert!(said("target=80,mode=vip").contains("ingress"));
        assert!(said("target=80,mode=host").contains("published=8080"));
        assert!(said("target=80,host=x").contains("unknown"));
        assert!(said("").contains("not a port"));
    }
}
