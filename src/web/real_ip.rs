//! The player's address as a proxy for web sites tells it.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;

/// Returns the player's address in this header; `None` if it is not there, or no address. Of a list, as `X-Forwarded-For` may
/// have it, the last one counts: the proxy itself wrote that, and what stands before it may be the client's.
pub fn told(headers: &HeaderMap, name: &str) -> Option<SocketAddr> {
    let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    let text = last.rsplit(',').next()?.trim();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?.to_canonical(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_each_of_its_forms() {
        let told = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("cf-connecting-ip", value.parse().unwrap());
            }
            told(&headers, "CF-Connecting-IP").map(|address| address.to_string())
        };
        for (values, expected) in [
            (&["203.0.113.7"][..], Some("203.0.113.7:0")),
            (&["203.0.113.7:4711"], Some("203.0.113.7:4711")),
            (&["2001:db8::7"], Some("[2001:db8::7]:0")),
            (&["[2001:db8::7]"], Some("[2001:db8::7]:0")),
            (&["[2001:db8::7]:1"], Some("[2001:db8::7]:1")),
            (&["::ffff:203.0.113.7"], Some("203.0.113.7:0")),
            (&["10.0.0.1, 203.0.113.7"], Some("203.0.113.7:0")),
            (&["10.0.0.1", "203.0.113.7"], Some("203.0.113.7:0")),
            (&["203.0.113.7, nonsense"], None),
            (&["p1.example"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(told(values).as_deref(), expected, "{values:?}");
        }
    }
}
