//! The answer to a login over HTTP, made of a game server's answer to a classic one.

use serde_json::{Value, json};

use super::answer::proxies;
use super::error::{ErrorCode, error_body};
use super::request::LoginRequest;
use crate::login::{Character, CharacterList, ClassicAnswer, ClassicRequest, Premium, Refusal, SessionKey, World};

/// Seconds for which a one-time password holds: servers count in these.
const TOKEN_PERIOD: u64 = 30;
/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;
/// Days that stand for a time without an end.
const ENDLESS: u16 = u16::MAX;

impl LoginRequest {
    /// Returns the same login as a classic one of this version.
    #[must_use]
    pub fn to_classic(&self, version: u16) -> ClassicRequest<'_> {
        let token = self.token.as_deref().unwrap_or_default();
        ClassicRequest { version, account: &self.account, password: &self.password, token, ..ClassicRequest::default() }
    }
}

/// Returns the body of an answer over HTTP that says what a classic one says to the same login, in the form of login services
/// and with all that known clients read there. `now` is in seconds since 1970.
///
/// Things that a classic answer does not say, as a level, are 0 or empty. Characters in no world are left out, since some
/// clients break on them.
#[must_use]
pub fn from_classic(answer: &ClassicAnswer, login: &LoginRequest, now: u64) -> String {
    match (&answer.refusal, &answer.characters) {
        (Some(Refusal::Message(message)), _) => error_body(ErrorCode::Login, message),
        (Some(Refusal::Token), _) => error_body(ErrorCode::Token, "The one-time password is missing, or it is wrong."),
        (Some(Refusal::Update), _) => error_body(ErrorCode::Login, "This client is too old for the game server."),
        (None, None) => error_body(ErrorCode::Technical, "The game server gave no list of characters."),
        (None, Some(list)) => {
            let mut body = characters(list, answer.session_key.as_ref(), login, now);
            if let (Some(edges), Some(playdata)) = (&answer.edges, body.get_mut("playdata")) {
                // The server's own list stays, as it does in a classic answer.
                playdata["proxies"] = proxies(edges);
            }
            body.to_string()
        }
    }
}

fn characters(list: &CharacterList, key: Option<&SessionKey>, login: &LoginRequest, now: u64) -> Value {
    let (is_premium, until) = premium(list.premium, now);
    let worlds: Vec<_> = list.worlds.iter().zip(0..).map(|(place, id)| world(place, id)).collect();
    let characters = list.characters.iter().filter(|character| character.world < worlds.len());
    let characters: Vec<_> = characters.map(character).collect();
    json!({
        "session": {
            "sessionkey": key.map_or_else(|| session_key(login, now), |SessionKey(key)| key.clone()),
            "lastlogintime": 0,
            "ispremium": is_premium,
            "premiumuntil": until,
            "status": status(list.premium),
            "returnernotification": false,
            "showrewardnews": false,
            "isreturner": true,
            "recoverysetupcomplete": true,
            "fpstracking": false,
            "optiontracking": false,
            "tournamentticketpurchasestate": 0,
            "emailcoderequest": false,
        },
        "playdata": { "worlds": worlds, "characters": characters },
    })
}

/// Returns a world. Its number is its place: servers that know of one world number all of them 0.
fn world(world: &World, id: usize) -> Value {
    json!({
        "id": id,
        "name": world.name,
        "externaladdress": world.host,
        "externalport": world.port,
        "externaladdressprotected": world.host,
        "externalportprotected": world.port,
        "externaladdressunprotected": world.host,
        "externalportunprotected": world.port,
        "previewstate": 0,
        "location": "",
        "anticheatprotection": false,
        "pvptype": 0,
        "istournamentworld": false,
        "restrictedstore": false,
        "currenttournamentphase": 0,
    })
}

fn character(character: &Character) -> Value {
    json!({
        "worldid": character.world,
        "name": character.name,
        "ismale": true,
        "tutorial": false,
        "level": 0,
        "vocation": "",
        "outfitid": 0,
        "headcolor": 0,
        "torsocolor": 0,
        "legscolor": 0,
        "detailcolor": 0,
        "addonsflags": 0,
        "ishidden": false,
        "ismaincharacter": false,
        "dailyrewardstate": 0,
        "istournamentparticipant": false,
        "remainingdailytournamentplaytime": 0,
    })
}

/// Returns the word for an account's status.
fn status(premium: Premium) -> &'static str {
    match premium {
        Premium::Until { status: 1, .. } => "frozen",
        Premium::Until { status: 2, .. } => "suspended",
        _ => "active",
    }
}

/// Returns whether an account is premium, and the second since 1970 in which that ends; 0 if it does not, or is not so.
fn premium(premium: Premium, now: u64) -> (bool, u64) {
    let after = |days: u16| match days {
        0 | ENDLESS => 0,
        days => now.saturating_add(u64::from(days) * DAY),
    };
    match premium {
        Premium::Days(days) => (days > 0, after(days)),
        Premium::Until { now: false, .. } => (false, 0),
        // So early a second is none: some servers say days.
        Premium::Until { at, .. } => (true, u16::try_from(at).map_or(u64::from(at), after)),
    }
}

/// Returns the session key of a game server that gives none: the four lines that TFS and its kin read from clients, account,
/// password, one-time password, and the count of periods since 1970 in which that held.
fn session_key(login: &LoginRequest, now: u64) -> String {
    let LoginRequest { account, password, token } = login;
    format!("{account}\n{password}\n{}\n{}", token.as_deref().unwrap_or_default(), now / TOKEN_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_list::{EdgeList, ListedEdge};
    use crate::login::http::{Unchanged, WorldAddress, rewrite};

    const NOW: u64 = 1_790_000_010;

    fn login(token: Option<&str>) -> LoginRequest {
        let own = str::to_owned;
        LoginRequest { account: own("name"), password: own("secret"), token: token.map(own) }
    }

    fn answer() -> ClassicAnswer {
        let world = |id, name: &str, port| World { id, name: name.to_owned(), host: "192.0.2.10".to_owned(), port };
        let character = |name: &str, world| Character { name: name.to_owned(), world };
        ClassicAnswer {
            session_key: Some(SessionKey("the server's".to_owned())),
            characters: Some(CharacterList {
                worlds: vec![world(7, "First", 7172), world(9, "Second", 7173)],
                characters: vec![character("Knight \"A\"", 1), character("Nowhere", 2), character("Däf", 0)],
                premium: Premium::Until { status: 0, now: true, at: 1_800_000_000 },
            }),
            ..ClassicAnswer::default()
        }
    }

    fn read(answer: &ClassicAnswer) -> Value {
        serde_json::from_str(&from_classic(answer, &login(None), NOW)).unwrap()
    }

    fn edges() -> EdgeList {
        EdgeList(vec![ListedEdge { host: "p1.example".to_owned(), port: 7162, priority: 0, datacenter: None }])
    }

    /// As the clients' Lua reads it.
    #[test]
    fn clients_find_what_they_read() {
        let answer = read(&answer());
        let session = &answer["session"];
        assert_eq!(session["sessionkey"], "the server's");
        assert_eq!(session["status"], "active");
        assert_eq!(
            (&session["ispremium"], &session["premiumuntil"]),
            (&Value::from(true), &Value::from(1_800_000_000))
        );
        let worlds = answer["playdata"]["worlds"].as_array().unwrap();
        let characters = answer["playdata"]["characters"].as_array().unwrap();
        let mut found = Vec::new();
        for character in characters {
            let world = worlds.iter().find(|world| world["id"] == character["worldid"]).unwrap();
            // OTCv8 and OTAcademy, and Redemption.
            for protection in ["unprotected", "protected", ""] {
                assert_eq!(world[format!("externaladdress{protection}")], "192.0.2.10");
                assert_eq!(world[format!("externalport{protection}")], world["externalport"]);
            }
            assert!(["level", "outfitid", "addonsflags"].iter().all(|key| character[key].is_u64()));
            assert!(
                ["ismale", "tutorial", "ishidden", "ismaincharacter"].iter().all(|key| character[key].is_boolean())
            );
            assert!(character["vocation"].is_string());
            found.push((character["name"].as_str().unwrap(), world["name"].as_str().unwrap()));
        }
        assert_eq!(found, [("Knight \"A\"", "Second"), ("Däf", "First")]);
    }

    #[test]
    fn edges_are_put_into_it_as_into_that_of_a_service() {
        let body = from_classic(&answer(), &login(None), NOW);
        let changed = rewrite(body.as_bytes(), &edges(), WorldAddress::Links).unwrap();
        assert!(!String::from_utf8(changed.clone()).unwrap().contains("192.0.2.10"));
        let changed: Value = serde_json::from_slice(&changed).unwrap();
        assert_eq!(changed["playdata"]["proxies"][0]["host"], "p1.example");
    }

    #[test]
    fn the_list_of_the_server_stays() {
        let body = from_classic(&ClassicAnswer { edges: Some(edges()), ..answer() }, &login(None), NOW);
        assert!(body.contains(r#""proxies":[{"host":"p1.example","port":7162,"priority":0}]"#), "{body}");
        assert_eq!(rewrite(body.as_bytes(), &edges(), WorldAddress::Links), Err(Unchanged::Listed));
    }

    #[test]
    fn errors_of_the_server_are_told() {
        for (refusal, code) in [
            (Some(Refusal::Message("Account name or password is not correct.".to_owned())), 3),
            (Some(Refusal::Token), 6),
            (Some(Refusal::Update), 3),
            (None, 1),
        ] {
            let body = from_classic(
                &ClassicAnswer { refusal: refusal.clone(), ..ClassicAnswer::default() },
                &login(None),
                NOW,
            );
            let error: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(error["errorCode"], code, "{body}");
            let message = error["errorMessage"].as_str().unwrap();
            // OTCv8 forgets account and password at these, which is right for the server's message alone.
            let forgets =
                ["invalid", "not correct", "or password"].iter().any(|part| message.to_lowercase().contains(part));
            assert_eq!(forgets, matches!(refusal, Some(Refusal::Message(_))), "{message}");
            assert_eq!(rewrite(body.as_bytes(), &edges(), WorldAddress::Links), Err(Unchanged::Error));
        }
    }

    #[test]
    fn the_time_of_an_account_in_all_its_forms() {
        let until = |now, at| Premium::Until { status: 0, now, at };
        for (form, expected) in [
            (Premium::Days(0), (false, 0)),
            (Premium::Days(2), (true, NOW + 2 * DAY)),
            (Premium::Days(ENDLESS), (true, 0)),
            (until(false, 0), (false, 0)),
            (until(false, 1_700_000_000), (false, 0)),
            (until(true, 0), (true, 0)),
            (until(true, 2), (true, NOW + 2 * DAY)),
            (until(true, 1_800_000_000), (true, 1_800_000_000)),
        ] {
            assert_eq!(premium(form, NOW), expected, "{form:?}");
        }
        let words = [0, 1, 2, 3].map(|status| super::status(Premium::Until { status, now: false, at: 0 }));
        assert_eq!(words, ["active", "frozen", "suspended", "active"]);
    }

    #[test]
    fn a_key_that_the_server_does_not_give_has_four_lines() {
        let answer = read(&ClassicAnswer { session_key: None, ..answer() });
        assert_eq!(answer["session"]["sessionkey"], "name\nsecret\n\n59666667");
        assert_eq!(session_key(&login(Some("123456")), 59), "name\nsecret\n123456\n1");
    }

    #[test]
    fn the_same_login_is_made_a_classic_one() {
        let login = login(Some("123456"));
        let classic = login.to_classic(1098);
        let read = (classic.version, classic.account, classic.password, classic.token);
        assert_eq!(read, (1098, "name", "secret", "123456"));
    }
}
