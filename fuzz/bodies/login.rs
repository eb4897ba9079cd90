//! Logins and their answers: a verdict once given stays, and what is changed can be read and is changed once.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use otproxy_protocol::edge_list::{EdgeList, ListedEdge};
use otproxy_protocol::login::Worlds;
use otproxy_protocol::login::{
    Checksum, ClassicAnswer, Framing, LoginRequest, LoginResult, MAX_ANSWER, MAX_REQUEST, RsaKey, Told, XteaKey, first,
    rewrite,
};

static KEY: LazyLock<RsaKey> = LazyLock::new(RsaKey::standard);

/// Takes the beginning of a connection, and behind some choices a login server's answer.
pub fn run(data: &[u8]) {
    check_request(data);
    let mut input = Unstructured::new(data);
    if let Ok((request, edges, worlds)) = choices(&mut input) {
        check_answer(input.take_rest(), &request, Told { edges: &edges, worlds });
    }
}

fn check_request(bytes: &[u8]) {
    let given = |cut: usize| Some(first(&bytes[..cut], &KEY)).filter(|verdict| *verdict != Ok(None));
    let Some((cut, verdict)) = (0..bytes.len()).find_map(|cut| Some((cut, given(cut)?))) else { return };
    assert!(cut <= MAX_REQUEST, "{cut} bytes, and no verdict");
    assert_eq!(first(bytes, &KEY), verdict, "at {cut}");
}

fn check_answer(bytes: &[u8], request: &LoginRequest, told: Told<'_>) {
    let verdict = rewrite(bytes, request, told);
    if let Some(cut) = (0..bytes.len()).find(|cut| rewrite(&bytes[..*cut], request, told) != Ok(None)) {
        assert!(cut <= MAX_ANSWER, "{cut} bytes, and no verdict");
        assert_eq!(rewrite(&bytes[..cut], request, told), verdict, "at {cut}");
    }
    let Ok(Some((changed, taken))) = verdict else { return };
    assert!(taken <= bytes.len() && taken <= MAX_ANSWER);
    let read = ClassicAnswer::read(&changed, request.framing, request.key.as_ref(), request.version);
    let answer = read.expect("it can be read").expect("it is whole");
    let again = if answer.edges.is_some() { LoginResult::Listed } else { LoginResult::Unchanged };
    // An answer that grew beyond what is read is not read again.
    let twice = rewrite(&changed, request, told);
    assert!(twice == Err(again) || changed.len() > MAX_ANSWER, "{twice:?}");
}

fn choices(input: &mut Unstructured<'_>) -> Result<(LoginRequest, EdgeList, Worlds)> {
    let version = *input.choose(&[760, 772, 860, 980, 1010, 1011, 1077, 1098, 1412])?;
    let checksum = if input.arbitrary()? { Checksum::Adler } else { Checksum::None };
    let framing = Framing { blocks: version >= 1405, checksum };
    let key = input.arbitrary::<bool>()?.then(|| XteaKey::from_bytes([7; 16]));
    let edge = |input: &mut Unstructured<'_>| {
        let host = (*input.choose(&["p1.example", "198.51.100.7", ""])?).to_owned();
        Ok(ListedEdge { host, port: input.arbitrary()?, priority: input.arbitrary()?, datacenter: None })
    };
    let count = input.int_in_range(0..=2)?;
    let edges = EdgeList((0..count).map(|_| edge(input)).collect::<Result<_>>()?);
    let request = LoginRequest { framing, version, key, otcv8: input.arbitrary()? };
    Ok((request, edges, *input.choose(Worlds::ALL)?))
}
