use proptest::prelude::*;

use super::*;

/// Answers in the shapes of login services, with values of our own.
const SERVICES: [(&str, &str); 4] = [
    // PHP: slashes and what is not ASCII escaped, all three addresses, a key that is the account's name and password.
    (
        "MyAAC",
        r#"{"session":{"sessionkey":"a@b.example\nsecret\n\n59012345","lastlogintime":0,"ispremium":true,"premiumuntil":1790000000,"status":"active","returnernotification":false,"showrewardnews":true,"isreturner":true,"fpstracking":false,"optiontracking":false,"tournamentticketpurchasestate":0,"emailcoderequest":false},"playdata":{"worlds":[{"id":0,"name":"Wyspa \u017b\/1","externaladdress":"192.0.2.10","externalport":7172,"externaladdressprotected":"192.0.2.10","externalportprotected":7172,"externaladdressunprotected":"192.0.2.10","externalportunprotected":7172,"previewstate":0,"location":"BRA","anticheatprotection":false,"pvptype":0,"istournamentworld":false,"restrictedstore":false,"currenttournamentphase":2}],"characters":[{"worldid":0,"name":"Knight","ismale":true,"tutorial":false,"level":8,"vocation":"Knight","outfitid":128,"headcolor":1,"torsocolor":2,"legscolor":3,"detailcolor":4,"addonsflags":0,"ishidden":false,"istournamentparticipant":false,"ismaincharacter":true,"dailyrewardstate":0,"remainingdailytournamentplaytime":0}]}}"#,
    ),
    // Go: `playdata` first, keys in the order of the alphabet, no list of characters at all, an end of line behind.
    (
        "login-server",
        "{\"playdata\":{\"characters\":null,\"worlds\":[{\"id\":0,\"name\":\"A \\u0026 B\",\"externaladdress\":\"192.0.2.10\",\"externaladdressprotected\":\"192.0.2.10\",\"externaladdressunprotected\":\"192.0.2.10\",\"externalport\":7172,\"externalportprotected\":7172,\"externalportunprotected\":7172,\"location\":\"\",\"anticheatprotection\":false,\"currenttournamentphase\":0,\"istournamentworld\":false,\"previewstate\":0,\"pvptype\":0,\"restrictedstore\":false}]},\"session\":{\"emailcoderequest\":false,\"ispremium\":false,\"lastlogintime\":0,\"premiumuntil\":0,\"sessionkey\":\"a@b.example\\nsecret\",\"status\":\"active\"}}\n",
    ),
    // Boost.JSON: no `externaladdress`, a key of random bytes in base64, the name of a class with a letter that is not ASCII.
    (
        "TFS",
        r#"{"session":{"sessionkey":"AAECAwQFBgcICQoLDA0ODw==","lastlogintime":1690000000,"ispremium":false,"premiumuntil":0,"status":"active","recoverysetupcomplete":true},"playdata":{"worlds":[{"id":0,"name":"Forgotten","externaladdressprotected":"192.0.2.10","externalportprotected":7172,"externaladdressunprotected":"192.0.2.10","externalportunprotected":7172,"previewstate":0,"location":"Sweden","anticheatprotection":false,"pvptype":0}],"characters":[{"worldid":0,"name":"Däf","level":8}]}}"#,
    ),
    // Two worlds, written for people, with numbers that are not written as we would.
    (
        "Canary",
        "{\r\n  \"session\": { \"sessionkey\": \"k\", \"premiumuntil\": 1.79e9, \"big\": 123456789012345678901234567890.10 },\r\n  \"playdata\": {\r\n    \"worlds\": [\r\n      { \"id\": 0, \"externaladdressprotected\": \"10.0.0.1\", \"externalportprotected\": 7172 },\r\n      { \"id\": 1, \"externaladdressprotected\": \"10.0.0.2\", \"externalportprotected\": 7173 }\r\n    ],\r\n    \"characters\": [ { \"worldid\": 1, \"name\": \"A\" } ]\r\n  }\r\n}",
    ),
];

fn edges() -> EdgeList {
    let edge = |host: &str, port, priority| ListedEdge { host: host.to_owned(), port, priority, datacenter: None };
    EdgeList(vec![edge("p1.example", 7162, 0), edge("198.51.100.7", 443, 50)])
}

const LISTED: &str =
    r#""proxies":[{"host":"p1.example","port":7162,"priority":0},{"host":"198.51.100.7","port":443,"priority":50}]"#;

fn rewritten(body: &str, address: WorldAddress<'_>) -> Result<String, Unchanged> {
    rewrite(body.as_bytes(), &edges(), address).map(|body| String::from_utf8(body).unwrap())
}

/// Returns `body` with `new` in place of its addresses.
fn with_address(body: &str, new: &str) -> String {
    let old = ["192.0.2.10", "10.0.0.1", "10.0.0.2"];
    old.iter().fold(body.to_owned(), |text, old| text.replace(&format!("\"{old}\""), &format!("\"{new}\"")))
}

#[test]
fn for_links_an_answer_is_changed_at_these_places_and_no_others() {
    for (service, body) in SERVICES {
        let rest = body.trim_end();
        let end_of_top = rest.len() - 1;
        // The last brace of `playdata`, which is last everywhere but there.
        let end_of_playdata = match service {
            "login-server" => rest.find("]},\"session\"").unwrap() + 1,
            _ => rest[..end_of_top].rfind('}').unwrap(),
        };
        let (first, second) = (&body[..end_of_playdata], &body[end_of_playdata..end_of_top]);
        let expected = [first, ",", LISTED, second, ",", LISTED, &body[end_of_top..]].concat();
        let changed = rewritten(body, WorldAddress::Links).unwrap();
        assert_eq!(changed, with_address(&expected, "127.0.0.1"), "{service}");
        assert_eq!(
            rewritten(&changed, WorldAddress::Links),
            Err(Unchanged::Listed),
            "{service}: once more changes nothing"
        );
    }
}

#[test]
fn for_an_edge_only_addresses_change() {
    for (service, body) in SERVICES {
        let expected = with_address(body, "p1.example");
        assert_ne!(expected, body);
        let to_edge = WorldAddress::Edge("p1.example");
        assert_eq!(rewritten(body, to_edge).as_ref(), Ok(&expected), "{service}");
        assert_eq!(rewritten(&expected, to_edge).as_ref(), Ok(&expected), "{service}: once more changes nothing");
        let none = EdgeList::default();
        assert_eq!(rewrite(body.as_bytes(), &none, to_edge), Ok(expected.into_bytes()), "{service}: it takes no list");
    }
}

#[test]
fn a_small_answer_byte_for_byte() {
    let body = r#"{"session":{},"playdata":{"worlds":[{"externaladdress":"a","externalport":1}]}}"#;
    let edges = EdgeList(vec![ListedEdge { host: "p".to_owned(), port: 2, priority: 3, datacenter: None }]);
    let list = r#""proxies":[{"host":"p","port":2,"priority":3}]"#;
    let expected = format!(
        r#"{{"session":{{}},"playdata":{{"worlds":[{{"externaladdress":"127.0.0.1","externalport":1}}],{list}}},{list}}}"#
    );
    assert_eq!(rewrite(body.as_bytes(), &edges, WorldAddress::Links), Ok(expected.into_bytes()));
}

#[test]
fn the_form_of_otcv8_has_its_list_at_the_top() {
    let answer = |address: &str, list: &str| {
        format!(
            r#"{{"error":"","rsa":"109","version":1099,"session":"name\nsecret\n\n1","characters":[{{"name":"A","worldName":"W","worldIp":"{address}","worldPort":7172}},{{"name":"B","worldName":"W","worldIp":"{address}","worldPort":7172}}],"account":{{"status":0,"subStatus":1,"premDays":65535}},"features":{{"22":true}}{list}}}"#
        )
    };
    for list in ["", r#","proxies":null"#, r#","proxies":[ ]"#] {
        let changed = rewritten(&answer("192.0.2.10", list), WorldAddress::Links);
        assert_eq!(changed, Ok(answer("127.0.0.1", &format!(",{LISTED}"))), "{list}");
    }
    let listed = answer("127.0.0.1", &format!(",{LISTED}"));
    assert_eq!(rewritten(&listed, WorldAddress::Links), Err(Unchanged::Listed));
}

#[test]
fn a_list_without_edges_gives_way() {
    let body = r#"{"proxies":null,"session":{},"playdata":{"proxies":[],"worlds":[{"externaladdress":"a"}]}}"#;
    let expected =
        format!(r#"{{{LISTED},"session":{{}},"playdata":{{{LISTED},"worlds":[{{"externaladdress":"127.0.0.1"}}]}}}}"#);
    assert_eq!(rewritten(body, WorldAddress::Links), Ok(expected));
}

#[test]
fn whatever_else_passes() {
    let with = |worlds: &str| format!(r#"{{"session":{{}},"playdata":{{"worlds":{worlds}}}}}"#);
    let world = r#"{"externaladdress":"a"}"#;
    assert!(rewritten(&with(&format!("[{world}]")), WorldAddress::Links).is_ok());
    for (body, reason) in [
        (String::new(), Unchanged::NotJson),
        ("<html>".to_owned(), Unchanged::NotJson),
        (format!("\u{feff}{}", with(&format!("[{world}]"))), Unchanged::NotJson),
        (format!("{}x", with(&format!("[{world}]"))), Unchanged::NotJson),
        ("[]".to_owned(), Unchanged::NoLogin),
        (r#""text""#.to_owned(), Unchanged::NoLogin),
        (r#"{"errorCode":3,"errorMessage":"Account name or password is not correct."}"#.to_owned(), Unchanged::Error),
        (r#"{"errorMessage":"No."}"#.to_owned(), Unchanged::Error),
        (r#"{"error":"too many requests"}"#.to_owned(), Unchanged::Error),
        (with(&format!("[{world}]")).replacen('{', r#"{"errorCode":6,"#, 1), Unchanged::Error),
        (r#"{"playersonline":12,"twitchstreams":0}"#.to_owned(), Unchanged::NoLogin),
        (r#"{"boostedcreature":true,"raceid":219}"#.to_owned(), Unchanged::NoLogin),
        (r#"{"eventlist":[],"lastupdatetimestamp":1690000000}"#.to_owned(), Unchanged::NoLogin),
        (with(&format!("[{world}]")).replace("{}", r#""key""#), Unchanged::NoLogin),
        (r#"{"session":{},"playdata":[]}"#.to_owned(), Unchanged::NoLogin),
        (with(&format!("[{world}]")).replacen('{', r#"{"proxies":[0],"#, 1), Unchanged::Listed),
        (with(&format!(r#"[{world}],"proxies":[{{"host":"a"}}]"#)), Unchanged::Listed),
        (with(&format!(r#"[{world}],"\u0070roxies":[{{}}]"#)), Unchanged::Listed),
        (with(&format!(r#"[{world}],"proxies":"none""#)), Unchanged::Listed),
        (r#"{"characters":[{"worldIp":"a"}],"proxies":[1]}"#.to_owned(), Unchanged::Listed),
        (with("[]"), Unchanged::NoWorlds),
        (with("null"), Unchanged::NoWorlds),
        (with(&format!("[{world},1]")), Unchanged::NoWorlds),
        (with(r#"[{"externaladdress":null,"externalport":7172}]"#), Unchanged::NoWorlds),
        (r#"{"session":{},"playdata":{}}"#.to_owned(), Unchanged::NoWorlds),
        (r#"{"characters":[]}"#.to_owned(), Unchanged::NoWorlds),
        (r#"{"characters":[{"name":"A"}]}"#.to_owned(), Unchanged::NoWorlds),
        (r#"{"characters":{"worldIp":"a"}}"#.to_owned(), Unchanged::NoWorlds),
    ] {
        assert_eq!(rewritten(&body, WorldAddress::Links), Err(reason), "{body}");
    }
    assert_eq!(rewrite(b"{\"session\":\"\xff\"}", &edges(), WorldAddress::Links), Err(Unchanged::NotJson));
    let none = EdgeList::default();
    assert_eq!(rewrite(SERVICES[0].1.as_bytes(), &none, WorldAddress::Links), Err(Unchanged::NoEdges));
}

#[test]
fn an_error_that_is_none_is_no_error() {
    let (_, body) = SERVICES[0];
    for nothing in [r#""errorCode":0"#, r#""errorMessage":"""#, r#""error":null"#, r#""error":false"#] {
        let body = body.replacen('{', &format!("{{{nothing},"), 1);
        assert!(rewritten(&body, WorldAddress::Links).is_ok(), "{nothing}");
    }
}

#[test]
fn of_two_members_with_one_name_clients_take_the_last() {
    let body = r#"{"session":{},"playdata":{"worlds":[{"externaladdress":"a","\u0065xternaladdress":"b"}]}}"#;
    let changed = rewritten(body, WorldAddress::Edge("e")).unwrap();
    assert!(changed.contains(r#"[{"externaladdress":"a","\u0065xternaladdress":"e"}]"#), "{changed}");
}

#[test]
fn a_name_is_written_as_json() {
    let changed = rewritten(SERVICES[2].1, WorldAddress::Edge("a\"\\\n")).unwrap();
    assert!(changed.contains(r#""externaladdressprotected":"a\"\\\n""#), "{changed}");
}

#[test]
fn limits() {
    let (_, body) = SERVICES[0];
    let longest = format!("{body}{}", " ".repeat(MAX_ANSWER - body.len()));
    assert!(rewritten(&longest, WorldAddress::Links).is_ok());
    assert_eq!(rewritten(&format!("{longest} "), WorldAddress::Links), Err(Unchanged::TooLong));
    // Short addresses, for a long one in each.
    let worlds = |count| vec![r#"{"externaladdress":""}"#; count].join(",");
    let body = |count| format!(r#"{{"session":{{}},"playdata":{{"worlds":[{}]}}}}"#, worlds(count));
    let host = "a".repeat(254);
    let most = MAX_GROWTH / 256 - 1;
    let changed = rewritten(&body(most), WorldAddress::Edge(&host)).unwrap();
    assert!(changed.len() <= body(most).len() + MAX_GROWTH);
    assert_eq!(rewritten(&body(most + 2), WorldAddress::Edge(&host)), Err(Unchanged::TooLong));
    assert_eq!(rewritten(&body(9000), WorldAddress::Edge(&host)), Err(Unchanged::TooLong));
    let edge = ListedEdge { host: "p1.example".to_owned(), port: 1, priority: 0, datacenter: None };
    let many = EdgeList(vec![edge; 1000]);
    assert_eq!(rewrite(body(1).as_bytes(), &many, WorldAddress::Links), Err(Unchanged::TooLong));
}

#[test]
fn depth_does_no_harm() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let (_, body) = SERVICES[0];
    let body = body.replacen('{', &format!("{{\"deep\":{deep},"), 1);
    assert!(rewritten(&body, WorldAddress::Links).unwrap().contains(&deep));
    assert_eq!(rewritten(&"{\"session\":".repeat(20_000), WorldAddress::Links), Err(Unchanged::NotJson));
}

/// Any JSON, with the keys that count among others.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, |inner| {
        let key = prop_oneof![
            prop::sample::select(vec![
                "session",
                "playdata",
                "worlds",
                "externaladdress",
                "errorCode",
                "proxies",
                "characters",
                "worldIp"
            ])
            .prop_map(str::to_owned),
            ".{0,6}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Takes the changed values out of an answer, so that the rest can be compared.
fn without_changes(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove(LIST);
    let (addressed, keys) = match answer.get_mut("playdata").and_then(Value::as_object_mut) {
        Some(playdata) => {
            playdata.remove(LIST);
            (&mut playdata["worlds"], &WORLD[..])
        }
        None => (&mut answer["characters"], &CHARACTER[..]),
    };
    for object in addressed.as_array_mut().unwrap() {
        for key in keys {
            if object[key].is_string() {
                object[key] = "".into();
            }
        }
    }
    answer
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(body in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(rewrite(&body, &edges(), WorldAddress::Links).is_err());
    }

    #[test]
    fn any_json_does_no_harm(json in json()) {
        let body = json.to_string();
        if let Ok(changed) = rewrite(body.as_bytes(), &edges(), WorldAddress::Links) {
            let changed: Value = serde_json::from_slice(&changed).unwrap();
            // A float may be another one once it is read.
            let json: Value = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(without_changes(changed), without_changes(json));
        }
    }

    #[test]
    fn of_an_answer_all_else_stays(session in json(), other in json(), id in json(), pretty: bool, links: bool) {
        let world = json!({ "id": id, "externaladdress": "192.0.2.10", "externaladdressprotected": "192.0.2.11" });
        let session = json!({ "sessionkey": session });
        let answer = json!({ "session": session, "playdata": { "worlds": [world], "characters": other.clone() }, "other": other });
        let body = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) }.unwrap();
        let (address, expected) =
            if links { (WorldAddress::Links, "127.0.0.1") } else { (WorldAddress::Edge("p1.example"), "p1.example") };
        let changed = rewrite(body.as_bytes(), &edges(), address).unwrap();
        prop_assert!(changed.len() <= body.len() + MAX_GROWTH);
        let changed: Value = serde_json::from_slice(&changed).unwrap();
        let world = &changed["playdata"]["worlds"][0];
        prop_assert_eq!(&world["externaladdress"], expected);
        prop_assert_eq!(&world["externaladdressprotected"], expected);
        prop_assert!(world.get("externaladdressunprotected").is_none());
        prop_assert_eq!(&changed["proxies"], &changed["playdata"]["proxies"]);
        prop_assert_eq!(changed["proxies"].as_array().map(Vec::len), links.then_some(2));
        // A float may be another one once it is read.
        let answer: Value = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(without_changes(changed), without_changes(answer));
    }

    #[test]
    fn a_cut_answer_passes(service in 0..SERVICES.len(), at: prop::sample::Index) {
        let body = SERVICES[service].1.trim_end().as_bytes();
        let cut = at.index(body.len());
        prop_assert_eq!(rewrite(&body[..cut], &edges(), WorldAddress::Links), Err(Unchanged::NotJson));
    }
}
