-- Lines of the game server's config.lua, for `game_server: custom`. Made by `otproxy init`. Older branches name the ports loginPort,
-- gamePort and statusPort.

-- What the login hands out as the world's address: with 127.0.0.1 a client uses its links. It is also in the status that
-- server lists get. If a web service does the login, it is that service's world address.
ip = "127.0.0.1"
bindOnlyGlobalAddress = true   -- listen on that address only

loginProtocolPort = 7170
statusProtocolPort = 7173
gameProtocolPort = 7172
