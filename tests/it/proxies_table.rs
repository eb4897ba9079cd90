//! The table of proxies in a real MariaDB, which the test starts in a folder of its own.

use std::path::Path;
use std::process::Stdio;

use otproxy::proxies_table::Database;
use otproxy_config::{Config, ProxiesTable, parse};

use crate::common::mariadb::MariaDb;
use crate::common::sandbox::*;

/// The table as the guide's SQL leaves it: without a key, and without numbers of its own.
const GUIDE: &str = "CREATE TABLE proxies (id int(11) NOT NULL, host tinytext NOT NULL, port int(11) NOT NULL, \
     priority smallint unsigned NOT NULL, disabled tinyint unsigned NOT NULL)";
const ROWS: &str = "INSERT INTO proxies VALUES (1, 'P1.example', 7162, 50, 0), (2, 'other.example', 7162, 7, 0), \
     (3, 'p2.example', 7162, 9, 1), (1, 'p1.example', 7162, 50, 0)";

/// Returns the settings that the core has.
fn table(database: &MariaDb, password: &Path) -> ProxiesTable {
    let text = format!(
        "role: core\nedges: [{{ name: waw1, address: 198.51.100.1 }}]\nlisteners: [{{ name: links, kind: relay, listen: '127.0.0.1:1' }}]\n\
         game_servers: [{{ port: 7172, address: '127.0.0.1:2' }}]\n\
         proxies_table: {{ socket: {}, user: keeper, password_file: {}, database: myot }}\n",
        database.socket().display(),
        password.display()
    );
    let Ok(Config::Core(core)) = parse("core.yaml", &text) else { panic!("a core") };
    core.proxies_table.expect("it is there")
}

async fn until(database: &MariaDb, what: &str, rows: &[&str]) {
    let mut last = Vec::new();
    let looked = eventually(what, async || {
        last = database.rows();
        (last == rows).then_some(())
    });
    looked.await;
}

async fn is_up(core: &Role, up: f64) {
    core.wait("otproxy_proxies_table_up", &["table=\"proxies\""], up).await;
}

#[test]
fn the_table_follows_the_edges_whatever_the_database_does() {
    let Some(mut database) = MariaDb::new() else { return };
    assert!(database.try_sql("mysql", "CREATE DATABASE myot").is_some_and(|made| made.status.success()));
    let grant = "GRANT SELECT, INSERT, UPDATE ON myot.proxies TO 'keeper'@'localhost'";
    database.sql(&format!("{GUIDE}; {ROWS}; CREATE USER 'keeper'@'localhost' IDENTIFIED BY 'a secret'; {grant}"));
    let password = database.folder.join("password");
    std::fs::write(&password, "a secret\n").unwrap();
    crate::common::run(async {
        let core = Role::core(&format!(
            "edges:\n- {{ name: waw1, address: 198.51.100.1, public: p1.example, priority: 20, disabled: false }}\n\
             - {{ name: fra1, address: 198.51.100.2, public: p2.example }}\n\
             - {{ name: lon1, address: 198.51.100.3, public: \"p3.example:443\" }}\n\
             proxies_table: {{ socket: {}, user: keeper, password_file: {}, database: myot, every: 1s }}\n\
             game_servers: [{{ port: 7172, address: \"127.0.0.1:7172\" }}]\n\
             listeners: [{{ name: links, kind: relay, listen: \"127.0.0.1:0\" }}]",
            database.socket().display(),
            password.display()
        ));
        let others = ["2 other.example 7162 7 0", "3 p2.example 7162 9 1", "4 p3.example 443 0 0"];
        let with = |waw1: [&'static str; 2]| [&waw1[..], &others[..]].concat();
        // The rows are put right, one is added, and those of an operator and of others stay.
        let inside = ["1 P1.example 7162 20 0", "1 p1.example 7162 20 0"];
        let outside = ["1 P1.example 7162 20 2", "1 p1.example 7162 20 2"];
        until(&database, "the rows are put right", &with(inside)).await;
        is_up(&core, 1.0).await;
        core.replace("disabled: false", "disabled: true").await;
        until(&database, "an edge is taken out", &with(outside)).await;
        // What an operator takes out stays out.
        database.sql("UPDATE proxies SET disabled = 1 WHERE host = 'P1.example' AND BINARY host = 'P1.example'");
        core.replace("disabled: false", "disabled: false").await;
        until(&database, "it is back", &with(["1 P1.example 7162 20 1", "1 p1.example 7162 20 0"])).await;
        database
            .sql("UPDATE proxies SET disabled = 0 WHERE disabled = 1 AND id = 1; ALTER TABLE proxies ENGINE = MyISAM");

        // The doctor finds no fault in the guide's table, and names what is missing.
        let config = table(&database, &password);
        let tried = async || Database::connect(&config).await.unwrap().try_rights().await;
        assert!(tried().await.is_ok());
        for (right, rest) in [("UPDATE", "INSERT"), ("INSERT", "UPDATE")] {
            database.sql(&format!("REVOKE {right} ON myot.proxies FROM 'keeper'@'localhost'"));
            let missing = tried().await.unwrap_err();
            assert_eq!(missing.remedy, grant, "{missing}, with {rest}");
            database.sql(grant);
        }

        // A right is missing: nothing happens, and it goes on once it is there.
        database.sql("REVOKE UPDATE ON myot.proxies FROM 'keeper'@'localhost'");
        core.replace("disabled: false", "disabled: true").await;
        is_up(&core, 0.0).await;
        assert_eq!(database.rows(), with(inside));
        database.sql(grant);
        until(&database, "it follows again", &with(outside)).await;
        is_up(&core, 1.0).await;

        // The table is locked, by somebody who goes away.
        let lock = "LOCK TABLES proxies WRITE; SELECT 'locked'; SELECT SLEEP(1000)";
        let mut holder = database.client("myot").args(["-n", "-e", lock]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 6];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
        core.replace("disabled: false", "disabled: false").await;
        is_up(&core, 0.0).await;
        let _ = holder.kill();
        let _ = holder.wait();
        database.sql("SELECT 1");
        for query in database.sql("SELECT id FROM information_schema.processlist WHERE info LIKE '%SLEEP(1000)%' AND command = 'Query' AND info NOT LIKE '%processlist%'") {
            let _ = database.try_sql("mysql", &format!("KILL {query}"));
        }
        until(&database, "it follows once the lock is gone", &with(inside)).await;

        // A URL says the same; and what is wrong with one is told without the password.
        let (url, socket) = (database.folder.join("url"), database.socket().display().to_string());
        let keys = format!("socket: {socket}, user: keeper, password_file: {}, database: myot", password.display());
        std::fs::write(&url, "mysql://keeper:a secret@localhost/myot").unwrap();
        core.replace(&keys, &format!("url_file: {}", url.display())).await;
        is_up(&core, 0.0).await;
        let by_url = ProxiesTable {
            socket: None,
            user: None,
            password_file: None,
            database: None,
            url_file: Some(url.clone()),
            ..config.clone()
        };
        let wrong = Database::connect(&by_url).await.err().expect("there is a blank in it");
        let told = format!("{wrong} {wrong:?} {}", wrong.remedy);
        assert!(told.contains("has a blank") && !told.contains("secret"), "{told}");
        std::fs::write(&url, format!("mysql://keeper:a%20secret@localhost/myot?socket={socket}\n")).unwrap();
        is_up(&core, 1.0).await;
        database.sql("UPDATE proxies SET priority = 1 WHERE host = 'p1.example'");
        until(&database, "it is put right by the URL", &with(inside)).await;
        let mut by_url = Database::connect(&by_url).await.unwrap();
        assert_eq!(by_url.names(), ("keeper", "myot"));
        assert!(by_url.try_rights().await.is_ok());
        core.replace(&keys, &keys).await;

        // It takes no changes, is gone, and is back.
        database.sql("SET GLOBAL read_only = 1");
        core.replace("disabled: false", "disabled: true").await;
        is_up(&core, 0.0).await;
        database.sql("SET GLOBAL read_only = 0");
        until(&database, "it follows once it takes changes again", &with(outside)).await;
        is_up(&core, 1.0).await;
        database.kill();
        is_up(&core, 0.0).await;
        core.replace("disabled: false", "disabled: false").await;
        database.start();
        until(&database, "it follows once the server is back", &with(inside)).await;
        is_up(&core, 1.0).await;

        // An edge that is gone from the file is out; and without the mapping nothing is shown.
        core.replace("- { name: lon1, address: 198.51.100.3, public: \"p3.example:443\" }\n", "").await;
        let gone = eventually("an edge that is gone is out", async || {
            database.rows().contains(&"4 p3.example 443 0 2".to_owned()).then_some(())
        });
        gone.await;
        core.stop().await;
    });
}
