-- A stand-in for a client: what a module sees of OTCv8, OTAcademy, OTClient Redemption and their forks, as their sources have it.
-- Time stands still until a test moves it.

local Client = {}
Client.__index = Client

-- The functions of Lua that modules use there too.
local LUA = {
  'assert', 'error', 'ipairs', 'math', 'next', 'pairs', 'pcall', 'print', 'select', 'string', 'table', 'tonumber', 'tostring', 'type',
  'unpack', 'getmetatable', 'setmetatable', 'os',
}

-- Returns a client that has never been started. `settings` are those of an earlier one.
function Client.new(settings)
  local client = setmetatable({
    proxies = {},      -- "host:port" -> priority
    pings = {},        -- "host:port" -> ms, of links that are up
    calls = {},        -- what g_proxy was asked to change, in order
    sessions = 0,
    lines = {},        -- the log
    asked = {},        -- URLs, in order
    answers = {},      -- the callbacks of those
    events = {},
    now = 0,
    settings = settings or {},
    saves = 0,
  }, Client)
  client.globals = client:make_globals()
  return client
end

function Client:make_globals()
  local globals = {}
  for _, name in ipairs(LUA) do globals[name] = _G[name] end
  globals._G = globals

  local function key_of(host, port)
    assert(type(host) == 'string' and type(port) == 'number', 'as the binding to C++ demands it')
    assert(port % 1 == 0 and port >= 0 and port <= 65535, 'as the binding to C++ demands it')
    return host .. ':' .. port
  end
  globals.g_proxy = {
    addProxy = function(host, port, priority)
      local key = key_of(host, port)
      assert(type(priority) == 'number' and priority % 1 == 0)
      if self.proxies[key] then return end
      self.proxies[key] = priority
      table.insert(self.calls, '+' .. key)
    end,
    removeProxy = function(host, port)
      local key = key_of(host, port)
      if not self.proxies[key] then return end
      self.proxies[key], self.pings[key] = nil, nil
      table.insert(self.calls, '-' .. key)
    end,
    clear = function()
      self.proxies, self.pings, self.sessions = {}, {}, 0
      table.insert(self.calls, 'clear')
    end,
    getProxies = function()
      local pings = {}
      for key in pairs(self.proxies) do pings[key] = self.pings[key] or 0 end
      return pings
    end,
  }
  globals.HTTP = {
    getJSON = function(url, callback)
      table.insert(self.asked, url)
      self.answers[#self.asked] = callback
      return #self.asked
    end,
  }
  globals.g_settings = {
    get = function(key) return self.settings[key] or '' end,
    set = function(key, value)
      value = tostring(value)
      self.settings[key] = value ~= '' and value or nil
    end,
    save = function() self.saves = self.saves + 1 end,
  }
  globals.g_logger = {
    warning = function(line)
      assert(type(line) == 'string' and #line <= 400 and not line:find('%c'), 'a line')
      table.insert(self.lines, line)
    end,
  }
  globals.scheduleEvent = function(callback, ms)
    local event = { at = self.now + ms / 1000, callback = callback }
    table.insert(self.events, event)
    return event
  end
  globals.removeEvent = function(event) event.callback = nil end
  return globals
end

-- Loads a module from its file, as clients do that of a `sandboxed` one: in a table of its own, with the globals behind it.
function Client:load(file)
  self.sandbox = setmetatable({}, { __index = self.globals })
  setfenv(assert(loadfile(file)), self.sandbox)()
  self.sandbox.init()
end

-- Unloads it, as clients do: its own table is empty then.
function Client:unload()
  self.sandbox.terminate()
  for name in pairs(self.sandbox) do self.sandbox[name] = nil end
end

-- Lets time pass, and calls what is due.
function Client:pass(seconds)
  local till = self.now + seconds
  while true do
    local first
    for index, event in ipairs(self.events) do
      if event.at <= till and (not first or event.at < self.events[first].at) then first = index end
    end
    if not first then break end
    local event = table.remove(self.events, first)
    self.now = event.at
    if event.callback then event.callback() end
  end
  self.now = till
end

-- Answers the newest question, or the one of that number.
function Client:answer(data, failure, number)
  self.answers[number or #self.asked](data, failure)
end

-- Has the links of these edges be up, and no others.
function Client:up(...)
  self.pings = {}
  for _, key in ipairs({ ... }) do self.pings[key] = 40 end
end

-- Returns what the client was told, as "a:1 b:2", with the priority behind a slash where it is not 0.
function Client:told()
  local keys = {}
  for key, priority in pairs(self.proxies) do table.insert(keys, priority == 0 and key or key .. '/' .. priority) end
  table.sort(keys)
  return table.concat(keys, ' ')
end

-- Returns what g_proxy was asked to change since the last time, in order of the alphabet where a module asks in any order.
function Client:changes()
  local calls = self.calls
  self.calls = {}
  table.sort(calls)
  return table.concat(calls, ' ')
end

-- Returns the lines of the log since the last time.
function Client:log()
  local lines = self.lines
  self.lines = {}
  return table.concat(lines, '\n')
end

-- The login of OTCv8 and OTAcademy at the old port: the proxies are cleared, and the connection is asked for at once. Returns whether
-- it goes over links: it does if there are proxies.
function Client:classic_login()
  self.globals.g_proxy.clear()
  return next(self.proxies) ~= nil
end

-- Their login by HTTP, once the answer is there: cleared, and those of the answer are added.
function Client:http_login(proxies)
  self.globals.g_proxy.clear()
  for _, proxy in ipairs(proxies or {}) do
    self.globals.g_proxy.addProxy(proxy.host, tonumber(proxy.port), tonumber(proxy.priority))
  end
  return next(self.proxies) ~= nil
end

return Client
