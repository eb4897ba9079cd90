-- For the client's init.lua. Made by `otproxy init`. The third argument is a priority: milliseconds added to the ping that
-- the client measures. 0 leaves the choice to the ping; 50 on an edge makes it a spare.
g_proxy.addProxy("p1.example", 7162, 0)
g_proxy.addProxy("fra1.hosts.example", 7162, 0)
g_proxy.addProxy("p3.example", 7162, 0)
-- And where the client has its server's address: 127.0.0.1, port 7171. Not an edge's name: it is this address that makes
-- the login go over links as well.
