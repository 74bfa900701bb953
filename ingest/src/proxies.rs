//! Who is at the other end of a request: the client, or a proxy that says where the request comes from.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;
use settings::Value;

/// Proxies that are believed. The header `Forwarded` is not read: most proxies write `X-Forwarded-For` and
/// pass `Forwarded` on as it is, so that any client could say where it comes from.
#[derive(Clone, Debug)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The address that a request of `remote` comes from. Each proxy adds the address that it was asked
    /// from; what stands before the address that the outermost trusted proxy has added may be made up.
    pub(crate) fn sender(&self, remote: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut sender = remote;
        while self.trusts(sender)
            && let Some(next) = hops.next().and_then(address)
        {
            sender = next;
        }
        sender
    }

    /// Whether nobody is believed.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the host at `address` is one of the proxies.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|block| block.contains(&address))
    }
}

/// Some proxies add the port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let address: IpAddr = text.parse().ok().or_else(with_port)?;
    Some(address.to_canonical())
}

impl Value for TrustedProxies {
    fn parse(raw: &str) -> Result<Self, String> {
        let parts = raw.split(|c: char| c == ',' || c.is_whitespace());
        let parts = parts.filter(|part| !part.is_empty());
        let blocks = parts.map(|part| {
            let alone = || part.parse().ok().map(|address: IpAddr| address.into());
            let block: Option<IpNet> = part.parse().ok().or_else(alone);
            block.ok_or_else(|| {
                format!("{part:?} is neither an address nor a block like 10.0.0.0/8")
            })
        });
        blocks.collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        let blocks: Vec<String> = self.0.iter().map(IpNet::to_string).collect();
        blocks.join(",")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PROXIES: &str = "10.0.0.0/8, 192.0.2.7 2001:db8:1::/48";

    fn sender(remote: &str, lines: &[&str]) -> String {
        let proxies = TrustedProxies::parse(PROXIES).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        headers.insert("forwarded", HeaderValue::from_static("for=198.51.100.66"));
        let sender = proxies.sender(remote.parse().unwrap(), &headers);
        sender.to_string()
    }

    #[test]
    fn a_trusted_proxy_says_where_a_request_comes_from() {
        for (remote, lines, expected) in [
            ("10.1.2.3", &["198.51.100.1"][..], "198.51.100.1"),
            ("192.0.2.7", &["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:1::5", &["2001:db8:9::1"], "2001:db8:9::1"),
            ("10.1.2.3", &["2001:db8:9::1, 10.9.9.9"], "2001:db8:9::1"),
            ("10.1.2.3", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.1.2.3", &["[2001:db8:9::1]:4711"], "2001:db8:9::1"),
            ("10.1.2.3", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // Several lines are one list.
            (
                "10.1.2.3",
                &["198.51.100.1", "10.9.9.9 ,10.9.9.8"],
                "198.51.100.1",
            ),
            // Its own health checks.
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["10.9.9.9"], "10.9.9.9"),
        ] {
            assert_eq!(sender(remote, lines), expected, "{remote} {lines:?}");
        }
    }

    #[test]
    fn nobody_else_says_where_a_request_comes_from() {
        for (remote, lines, expected) in [
            ("198.51.100.1", &["203.0.113.5"][..], "198.51.100.1"),
            ("192.0.2.8", &["10.1.2.3, 10.1.2.4"], "192.0.2.8"),
            // What the client has made up stands before what the proxy has added.
            ("10.1.2.3", &["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
            (
                "10.1.2.3",
                &["203.0.113.5", "198.51.100.1, 10.9.9.9"],
                "198.51.100.1",
            ),
            ("10.1.2.3", &["10.9.9.9, 198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["203.0.113.5, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["203.0.113.5,"], "10.1.2.3"),
            ("10.1.2.3", &["203.0.113.5, ::g, 10.9.9.9"], "10.9.9.9"),
        ] {
            assert_eq!(sender(remote, lines), expected, "{remote} {lines:?}");
        }
        let none = TrustedProxies::parse("").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.5"));
        let remote: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(none.sender(remote, &headers), remote);
    }

    #[test]
    fn proxies_are_addresses_and_blocks() {
        let proxies = TrustedProxies::parse(PROXIES).unwrap();
        assert_eq!(proxies.show(), "10.0.0.0/8,192.0.2.7/32,2001:db8:1::/48");
        for wrong in [
            "10.0.0.0/33",
            "proxy.example.com",
            "10.0.0",
            "10.0.0.1:80",
            "*",
        ] {
            let error = TrustedProxies::parse(wrong).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
