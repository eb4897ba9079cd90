//! Reloads of both ends: the listeners that streams lead to.

use tokio::net::TcpListener;

use crate::common::run;
use crate::common::tunnel::*;

#[test]
fn streams_lead_to_the_listeners_of_now() {
    run(async {
        let certificates = Certificates::new();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forward = |name: &str| {
            format!("{{ name: {name}, forward_to: '{}', send_proxy: none }}", target.local_addr().unwrap())
        };
        let (one, two) = (format!("[{}]", forward("login")), format!("[{}, {}]", forward("login"), forward("other")));
        let core = Role::start(&core(&certificates, "[{ name: waw1 }]", &one, ""));
        let listeners = "[{ name: a, listen: '127.0.0.1:0', forward_to: core/login }, \
                         { name: b, listen: '127.0.0.1:0', forward_to: core/other }]";
        let edge = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), listeners));
        let mut old = stream(&edge, "a", &target).await;
        in_vain(edge.addr("b")).await;
        let refused = ["reason=\"unknown_listener\""];
        core.wait_until("otproxy_tunnel_streams_refused_total", &refused, |now| now == 1.0).await;
        core.replace(&one, &two).await;
        let mut new = stream(&edge, "b", &target).await;
        core.replace(&one, &format!("[{}]", forward("other"))).await;
        in_vain(edge.addr("a")).await;
        core.wait_until("otproxy_tunnel_streams_refused_total", &refused, |now| now == 2.0).await;
        goes_on(&mut old).await;
        goes_on(&mut new).await;
        // The edge's listener leads elsewhere from now on, through the tunnel that there is.
        edge.replace("core/login", "core/other").await;
        goes_on(&mut stream(&edge, "a", &target).await).await;
        goes_on(&mut old).await;
    });
}
