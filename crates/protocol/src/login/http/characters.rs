//! The answer to a login over HTTP, made of what a game server says in its own way.

use std::fmt;

use serde_json::{Value, json};

use super::request::LoginRequest;

/// Seconds for which a one-time password holds: servers count in these.
const TOKEN_PERIOD: u64 = 30;

/// An account's characters, and the worlds that they are in. Its Debug shows no session.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AccountCharacters {
    /// The text by which the game server knows the login again.
    pub session_key: String,
    /// True if the account has more rights than a free one.
    pub premium: bool,
    /// The second since 1970 in which that ends; 0 if it does not, or if there is nothing to end.
    pub premium_until: u64,
    /// The worlds.
    pub worlds: Vec<World>,
    /// The characters.
    pub characters: Vec<Character>,
}

/// A world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Its name.
    pub name: String,
    /// The name or address at which clients find it, as the game server says.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// True if it is there for trials of what is to come.
    pub preview: bool,
}

/// A character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Character {
    /// Its name.
    pub name: String,
    /// The place of its world among the worlds.
    pub world: usize,
}

impl AccountCharacters {
    /// Returns them as JSON, as login services write it: with all that known clients read. Things that the game server does not say,
    /// as a level, is 0 or empty. Characters in no world are left out, since some clients break on them.
    #[must_use]
    pub fn to_json(&self) -> String {
        let characters = self.characters.iter().filter(|character| character.world < self.worlds.len());
        json!({
            "session": {
                "sessionkey": self.session_key,
                "lastlogintime": 0,
                "ispremium": self.premium,
                "premiumuntil": self.premium_until,
                "status": "active",
                "returnernotification": false,
                "showrewardnews": false,
                "isreturner": true,
                "recoverysetupcomplete": true,
                "fpstracking": false,
                "optiontracking": false,
                "tournamentticketpurchasestate": 0,
                "emailcoderequest": false,
            },
            "playdata": {
                "worlds": self.worlds.iter().zip(0..).map(|(world, id)| world.to_json(id)).collect::<Vec<_>>(),
                "characters": characters.map(Character::to_json).collect::<Vec<_>>(),
            },
        })
        .to_string()
    }
}

impl World {
    fn to_json(&self, id: usize) -> Value {
        json!({
            "id": id,
            "name": self.name,
            "externaladdress": self.address,
            "externalport": self.port,
            "externaladdressprotected": self.address,
            "externalportprotected": self.port,
            "externaladdressunprotected": self.address,
            "externalportunprotected": self.port,
            "previewstate": u8::from(self.preview),
            "location": "",
            "anticheatprotection": false,
            "pvptype": 0,
            "istournamentworld": false,
            "restrictedstore": false,
            "currenttournamentphase": 0,
        })
    }
}

impl Character {
    fn to_json(&self) -> Value {
        json!({
            "worldid": self.world,
            "name": self.name,
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
}

impl fmt::Debug for AccountCharacters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountCharacters")
            .field("worlds", &self.worlds)
            .field("characters", &self.characters.len())
            .finish_non_exhaustive()
    }
}

/// Returns the session key of a game server that gives none: the four lines that TFS and its kin read from clients, account,
/// password, one-time password, and the count of periods since 1970 in which that held. `now` is in seconds since 1970.
#[must_use]
pub fn session_key(login: &LoginRequest, now: u64) -> String {
    let LoginRequest { account, password, token } = login;
    format!("{account}\n{password}\n{}\n{}", token.as_deref().unwrap_or_default(), now / TOKEN_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_list::{EdgeList, ListedEdge};
    use crate::login::http::{WorldAddress, rewrite};

    fn account() -> AccountCharacters {
        let world = |name: &str, port| World {
            name: name.to_owned(),
            address: "192.0.2.10".to_owned(),
            port,
            preview: port == 7173,
        };
        let character = |name: &str, world| Character { name: name.to_owned(), world };
        AccountCharacters {
            session_key: "name\nsecret".to_owned(),
            premium: true,
            premium_until: 1_790_000_000,
            worlds: vec![world("First", 7172), world("Second", 7173)],
            characters: vec![character("Knight \"A\"", 1), character("Nowhere", 2), character("Däf", 0)],
        }
    }

    /// As the clients' Lua reads it.
    #[test]
    fn clients_find_what_they_read() {
        let answer: Value = serde_json::from_str(&account().to_json()).unwrap();
        let session = &answer["session"];
        assert_eq!(session["sessionkey"], "name\nsecret");
        assert_eq!(session["status"], "active");
        assert_eq!(
            (&session["ispremium"], &session["premiumuntil"]),
            (&Value::from(true), &Value::from(1_790_000_000))
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
            found.push((
                character["name"].as_str().unwrap(),
                world["name"].as_str().unwrap(),
                world["previewstate"].as_u64(),
            ));
        }
        assert_eq!(found, [("Knight \"A\"", "Second", Some(1)), ("Däf", "First", Some(0))]);
    }

    #[test]
    fn edges_are_put_into_it_as_into_that_of_a_service() {
        let edges = EdgeList(vec![ListedEdge { host: "p1.example".to_owned(), port: 7162, priority: 0 }]);
        let changed = rewrite(account().to_json().as_bytes(), &edges, WorldAddress::Links).unwrap();
        let answer: Value = serde_json::from_slice(&changed).unwrap();
        assert_eq!(answer["playdata"]["proxies"][0]["host"], "p1.example");
        assert!(!String::from_utf8(changed).unwrap().contains("192.0.2.10"));
    }

    #[test]
    fn a_key_that_the_server_does_not_give_has_four_lines() {
        let login = |token: Option<&str>| LoginRequest {
            account: "name".to_owned(),
            password: "secret".to_owned(),
            token: token.map(str::to_owned),
        };
        assert_eq!(session_key(&login(None), 59), "name\nsecret\n\n1");
        assert_eq!(session_key(&login(Some("123456")), 1_790_000_000), "name\nsecret\n123456\n59666666");
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", account());
        assert!(!text.contains("secret") && !text.contains("Knight"), "{text}");
    }
}
