//! Logins over HTTP: an answer is changed in what it is to be, once, and everything else in it stays.

use otproxy_protocol::edge_list::{EdgeList, ListedEdge};
use otproxy_protocol::login::http::{
    Client, Headers, LoginRequest, MAX_GROWTH, Request, Unchanged, WorldAddress, from_classic, rewrite,
};
use otproxy_protocol::login::{Character, CharacterList, ClassicAnswer, Premium, World};
use serde_json::Value;

/// Takes the way on which worlds are reached, and a body: an answer or a request.
pub fn run(data: &[u8]) {
    let Some((way, body)) = data.split_first() else { return };
    let address = if way % 2 == 0 { WorldAddress::Links } else { WorldAddress::Edge("p1.example") };
    check_answer(body, address);
    check_request(body);
    check_characters(body, address);
}

fn edges() -> EdgeList {
    EdgeList(vec![ListedEdge { host: "p1.example".to_owned(), port: 7162, priority: 0, datacenter: None }])
}

fn check_answer(body: &[u8], address: WorldAddress<'_>) {
    let Ok(changed) = rewrite(body, &edges(), address) else { return };
    assert!(changed.len() <= body.len() + MAX_GROWTH, "{} bytes of {}", changed.len(), body.len());
    let links = address == WorldAddress::Links;
    let again = rewrite(&changed, &edges(), address);
    assert!(
        if links { again == Err(Unchanged::Listed) } else { again.as_ref() == Ok(&changed) },
        "once more: {again:?}"
    );
    // What passes through need not be as this reader wants it: numbers have any size, and objects any depth.
    let Ok(before) = serde_json::from_slice::<Value>(body) else { return };
    let after: Value = serde_json::from_slice(&changed).expect("JSON as before");
    if links {
        assert!(after.get("characters").is_some() || after["proxies"] == after["playdata"]["proxies"]);
        assert_eq!(after["proxies"][0]["port"], 7162);
    }
    assert_eq!(without_changes(after), without_changes(before));
}

/// Returns an answer without the values that are changed.
fn without_changes(mut answer: Value) -> Value {
    answer.as_object_mut().expect("an object").remove("proxies");
    let addressed = match answer.get_mut("playdata").and_then(Value::as_object_mut) {
        Some(playdata) => {
            playdata.remove("proxies");
            &mut playdata["worlds"]
        }
        None => &mut answer["characters"],
    };
    for object in addressed.as_array_mut().expect("an array") {
        for key in ["externaladdress", "externaladdressprotected", "externaladdressunprotected", "worldIp"] {
            if object[key].is_string() {
                object[key] = "".into();
            }
        }
    }
    answer
}

fn check_request(body: &[u8]) {
    let request = Request::read(body);
    let shown = format!("{request:?}");
    assert!(matches!(&*shown, "Other" | "Login(LoginRequest { .. })"), "{shown}");
    let _ = Client::of(body, Headers { user_agent: Some("Mozilla/5.0"), accept_language: None });
}

fn check_characters(body: &[u8], address: WorldAddress<'_>) {
    let text = String::from_utf8_lossy(body.get(..64).unwrap_or(body)).into_owned();
    let login = LoginRequest { account: text.clone(), password: text.clone(), token: None };
    let list = CharacterList {
        worlds: vec![World { id: 0, name: text.clone(), host: text.clone(), port: 7172 }],
        characters: vec![Character { name: text, world: body.len() % 2 }],
        premium: Premium::Days(body.len() as u16),
    };
    let answer = ClassicAnswer { characters: Some(list), ..ClassicAnswer::default() };
    let body = from_classic(&answer, &login, u64::MAX);
    assert!(rewrite(body.as_bytes(), &edges(), address).is_ok(), "an answer of our own");
}
