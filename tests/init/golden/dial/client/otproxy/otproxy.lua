-- The edges of your server, for your players' clients. Made by `otproxy init`.
--
-- The folder `otproxy`, with this file and otproxy.otmod in it, goes into the client's folder `mods`. It is the same for OTCv8,
-- OTAcademy, OTClient Redemption and their forks. docs/clients.md of otproxy has more, as the way into a data.zip.
--
--   1. It tells the client the edges below. The client opens a link to each, and plays over the best two.
--   2. OTCv8 and OTAcademy forget all edges at each login, by g_proxy.clear(). That function is wrapped here: it tells them again.
--   3. If LIST_URLS has addresses, it fetches a newer list there, so that new edges need no new client.
--
-- Nothing in here holds up a login. If something fails, the client's log has a line that begins with [otproxy], and the edges stay.

-- The edges, and names of edges that you may have later. A name without a DNS record does no harm. The priority is
-- in milliseconds, added to the ping that the client measures: with 50 an edge is a spare.
local EDGES = {
  { host = "p1.example:7162", priority = 20 },
  { host = "fra1.hosts.example:7162", priority = 0 },
  { host = "p3.example:7162", priority = 0 },
}
-- The addresses of a newer list, as {"proxies":[{"host":"p1.example:7162","priority":0}]}. They are tried in turn. Without any, the list above is all.
local LIST_URLS = {
  "https://www.example/edges.json",
  "https://edges.test/list",
}

local REFRESH = 300     -- seconds from one look at the list to the next
local RETRY = 30        -- the same while no link is up
local TICK = 5          -- seconds from one look at the links to the next
local SLOW = 15         -- seconds that an answer may take
local MOST = 32         -- edges in a list
local LONGEST = 253     -- characters of a host's name
local DOWN = 5000       -- the ping of a link that is down, as clients tell it; before the first pong it is 0

local told = {}         -- the edges that the client was told from here: "host:port" -> { host =, port =, priority = }
local built_in = {}     -- EDGES, in the same form
local settled = {}      -- the edges that hold: built in, remembered, or of the last list that proved good
local newest            -- a fetched list, until a link to one of its edges is up
local asked             -- the number of the URL whose answer is awaited
local turn = 0          -- counts questions: answers to older ones come too late
local since = 0         -- seconds since the last look at the list
local waited = 0        -- seconds since the last question
local remembered        -- the list in the client's settings
local said = {}         -- the last line of the log about each thing
local running = false   -- from `start` to `stop`
local timer, clear, wrapped

-- Writes a line into the client's log, but not the same line about the same thing again.
local function log(about, line)
  line = (about .. ': ' .. tostring(line)):gsub('%c', ' '):sub(1, 380)
  if said[about] ~= line then
    said[about] = line
    pcall(function() g_logger.warning('[otproxy] ' .. line) end)
  end
end

-- Calls a function. If it fails, that is a line in the log and no more.
local function try(what, ...)
  local ok, failure = pcall(what, ...)
  if not ok then log('failed', failure) end
end

-- Returns an entry of a list as an edge, or nothing if it is none: a name or an IPv4 address, a colon, a port.
local function edge_of(entry)
  if type(entry) ~= 'table' or type(entry.host) ~= 'string' or #entry.host > LONGEST + 6 then return nil end
  local host, port = entry.host:lower():match('^([%w._-]+):(%d+)$')
  port = tonumber(port)
  local priority = tonumber(entry.priority or 0)
  if not port or port < 1 or port > 65535 then return nil end
  if not priority or not (priority >= 0 and priority <= 65535) then return nil end
  return { host = host, port = port, priority = math.floor(priority) }
end

-- Returns the edges of a list by "host:port", or nothing and what is wrong with it.
local function read(about, list)
  if type(list) ~= 'table' then return nil, 'has no list `proxies`' end
  if #list == 0 then return nil, 'has no edges' end
  if #list > MOST then return nil, 'has more than ' .. MOST .. ' edges' end
  local edges, left_out = {}, {}
  for _, entry in ipairs(list) do
    local edge = edge_of(entry)
    local key = edge and edge.host .. ':' .. edge.port
    local name = type(entry) == 'table' and tostring(entry.host) or tostring(entry)
    if edge and not edges[key] then
      edges[key] = edge
    elseif not name:lower():match('^wss?://') then  -- links of web clients: not for this one
      table.insert(left_out, name:sub(1, 60))
    end
  end
  if #left_out > 0 then
    log(about .. ', left out', table.concat(left_out, ', ') .. ' (twice there, or not as p1.example:7162)')
  end
  if not next(edges) then return nil, 'has no edge for this client' end
  return edges
end

-- Tells the client the edges of a list and of a second one, and has it give up what is in neither. Equal ones are not touched:
-- the client would end their links.
local function tell(edges, more)
  local all = {}
  for key, edge in pairs(edges) do all[key] = edge end
  for key, edge in pairs(more or {}) do all[key] = edge end
  for key, edge in pairs(all) do
    local before = told[key]
    if not before or before.priority ~= edge.priority then
      if before then g_proxy.removeProxy(before.host, before.port) end
      g_proxy.addProxy(edge.host, edge.port, edge.priority)
      told[key] = edge
    end
  end
  for key, edge in pairs(told) do
    if not all[key] then
      g_proxy.removeProxy(edge.host, edge.port)
      told[key] = nil
    end
  end
end

-- Tells the client all edges again.
local function tell_again()
  for _, edge in pairs(told) do g_proxy.addProxy(edge.host, edge.port, edge.priority) end
end

-- Returns whether a link is up, to one of these edges if some are given. If the client cannot tell, one is.
local function is_up(edges)
  local ok, pings = pcall(function() return g_proxy.getProxies() end)
  if not ok or type(pings) ~= 'table' then return true end
  for key, ping in pairs(pings) do
    if (not edges or edges[key]) and tonumber(ping) and ping > 0 and ping < DOWN then return true end
  end
  return false
end

-- Returns a list as text, as "p1.example:7162 0, p2.example:7162 0".
local function text_of(edges)
  local lines = {}
  for key, edge in pairs(edges) do table.insert(lines, key .. ' ' .. edge.priority) end
  table.sort(lines)
  return table.concat(lines, ', ')
end

-- Returns the list of the last time. In a client that was built with other edges it does not count.
local function recall()
  if g_settings.get('otproxy-built-in') ~= text_of(built_in) then return nil end
  local list = {}
  for host, priority in g_settings.get('otproxy-list'):gmatch('([^ ,]+) (%d+)') do
    table.insert(list, { host = host, priority = priority })
  end
  return (read('the remembered list', list))
end

-- Keeps a list for the next start.
local function remember(edges)
  local text = text_of(edges)
  if text == remembered then return end
  remembered = text
  g_settings.set('otproxy-list', text)
  g_settings.set('otproxy-built-in', text_of(built_in))
  g_settings.save()
end

-- Gives up the edges that a fetched list no longer has, once a link to one of its edges is up: a list of dead ones takes nothing away.
local function settle()
  if newest and is_up(newest) then
    settled, newest = newest, nil
    tell(settled)
    try(remember, settled)
  end
end

-- Asks the URL of this number for a list, and the next one if there is no good list.
local function ask(number)
  turn, waited, asked = turn + 1, 0, LIST_URLS[number] and number
  local url, mine = LIST_URLS[number], turn
  if not url then return end
  local function answered(data, failure)
    if mine ~= turn then return end
    local edges, wrong
    if not failure then edges, wrong = read(url, type(data) == 'table' and data.proxies) end
    if not edges then
      log(url, (failure and tostring(failure) or wrong) .. ', so the edges stay as they are')
      return ask(number + 1)
    end
    turn, asked, said[url], newest = turn + 1, nil, nil, edges
    tell(settled, newest)
    settle()
  end
  local ok, failure = pcall(HTTP.getJSON, url, function(...) try(answered, ...) end)
  if not ok then try(answered, nil, failure) end
end

-- Looks at the links and the clock, and asks for the list when it is time.
local function look()
  since, waited = since + TICK, waited + TICK
  settle()
  local up = is_up()
  if since >= RETRY and not up then
    -- The edges that the client was built with are better than none.
    for key, edge in pairs(built_in) do settled[key] = settled[key] or edge end
    tell(settled, newest)
  end
  if asked then
    if waited >= SLOW then
      log(LIST_URLS[asked], 'no answer in ' .. SLOW .. ' s, so the edges stay as they are')
      ask(asked + 1)
    end
  elseif since >= REFRESH or (since >= RETRY and not up) then
    since = 0
    ask(1)
  end
end

-- Calls `look` after each TICK.
local function wait()
  timer = scheduleEvent(function()
    if not running then return end
    try(wait)
    try(look)
  end, TICK * 1000)
end

-- Undoes what `start` did, but for the links: a game may go over them.
local function stop()
  if not running then return end
  running, told, turn = false, {}, turn + 1
  if g_proxy.clear == wrapped then g_proxy.clear = clear end
  g_proxy.otproxy = nil
  if timer then removeEvent(timer) end
end

local function start()
  if type(g_proxy) ~= 'table' then return log('edges', 'this client knows none: it has no g_proxy') end
  if g_proxy.otproxy then try(g_proxy.otproxy) end  -- a copy of this that was not unloaded
  running, g_proxy.otproxy, clear = true, stop, g_proxy.clear
  wrapped = function(...)
    if clear then clear(...) end
    try(tell_again)
  end
  g_proxy.clear = wrapped
  local wrong
  built_in, wrong = read('the edges of otproxy.lua', EDGES)
  if not built_in then
    log('the edges of otproxy.lua', wrong)
    built_in = {}
  end
  settled = built_in
  if #LIST_URLS > 0 then
    try(function() settled = recall() or built_in end)
    remembered = settled ~= built_in and text_of(settled) or nil
  end
  try(tell, settled)
  if #LIST_URLS == 0 then return end
  if type(HTTP) ~= 'table' or not HTTP.getJSON then
    return log('newer lists', 'this client fetches none: it has no HTTP.getJSON')
  end
  try(ask, 1)
  wait()
end

function init() try(start) end

function terminate() try(stop) end
