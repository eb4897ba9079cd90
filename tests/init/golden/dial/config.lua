-- Lines of the game server's config.lua, for `game_server: tfs14-otc`. Made by `otproxy init`. Older branches name the ports loginPort,
-- gamePort and statusPort.

-- What the login hands out as the world's address: with 127.0.0.1 a client uses its links. It is also in the status that
-- server lists get. If a web service does the login, it is that service's world address.
ip = "127.0.0.1"
bindOnlyGlobalAddress = false   -- the core connects from elsewhere: let your firewall keep all others out

-- The switches of the OTC proxy patch, which are off by default: without them the server closes all that the core sends it.
allowOtcProxy = true
allowHaProxy = true
-- One branch of TFS 1.4 reads both from another key by mistake. The sign: with the lines above it still closes at once, as
-- `otproxy doctor` on the core says. Then:
-- binaryPlayerItems = true
-- The address that players without links and server lists are told: an edge's. Some branches name it statusIP.
statusIp = "p1.example"

loginProtocolPort = 7171
statusProtocolPort = 7171
-- Of the worlds on one host only one can have these two ports.

-- "Antica"
gameProtocolPort = 7172

-- "Bücher: # \"quoted\""
gameProtocolPort = 7273
-- Clients ask for port 7272: the login must hand out that one as the world's.
