-- Runs the clients' module of `otproxy init` in stand-ins for clients: run.lua MODULE OTHER ALONE, each an otproxy.lua.
-- MODULE has the edges p1, p2 and one name ahead, p3, and two URLs; OTHER the same with one more edge; ALONE is MODULE without URLs.

local MODULE, OTHER, ALONE = arg[1], arg[2], arg[3]
local FIRST, SECOND = 'https://one.example/edges.json', 'http://two.example/edges.json'
local BUILT_IN = 'p1.example:7162 p2.example:7162 p3.example:7162'

local Client = dofile((arg[0]:match('^(.*)/') or '.') .. '/stand_in.lua')

local tests = {}
local function test(name, body) table.insert(tests, { name = name, body = body }) end

local function equal(is, should, what)
  if is ~= should then
    error((what and what .. ': ' or '') .. 'is ' .. tostring(is) .. '\n  and not ' .. tostring(should), 2)
  end
end

local function says(log, what)
  if not log:find(what, 1, true) then error('no ' .. what .. ' in:\n' .. log, 2) end
end

-- Returns the body of a list, of "host:port" with or without "/priority".
local function list(...)
  local proxies = {}
  for _, text in ipairs({ ... }) do
    local host, priority = text:match('^(.-)/(%d+)$')
    table.insert(proxies, { host = host or text, priority = tonumber(priority or 0) })
  end
  return { proxies = proxies }
end

-- Returns a client that has loaded the module, and whose links are up.
local function started(file, settings)
  local client = Client.new(settings)
  client:load(file or MODULE)
  client:up('p1.example:7162', 'p2.example:7162')
  client:changes()
  return client
end

test('the edges are told at the start, names ahead too', function()
  local client = Client.new()
  client:load(MODULE)
  equal(client:told(), BUILT_IN)
  equal(client:log(), '')
end)

test('edges are there after each login that clears them', function()
  for _, file in ipairs({ MODULE, ALONE }) do
    local client = started(file)
    for _ = 1, 3 do
      client.sessions = 1
      assert(client:classic_login(), 'the login would go to the player\'s own host')
      equal(client:told(), BUILT_IN)
      equal(client.sessions, 0, 'sessions are ended as before')
    end
    assert(client:http_login())
    equal(client:told(), BUILT_IN)
  end
end)

test('edges of a login answer are added to them', function()
  local client = started()
  client:http_login({ { host = 'p9.example', port = '7162', priority = '5' }, { host = 'p1.example', port = 7162, priority = 0 } })
  equal(client:told(), BUILT_IN .. ' p9.example:7162/5')
  -- A list that never had it takes nothing away from the login service.
  client:up('p1.example:7162')
  client:answer(list('p1.example:7162', 'p2.example:7162', 'p3.example:7162'))
  equal(client:told(), BUILT_IN .. ' p9.example:7162/5')
end)

test('without URLs nothing is asked, and nothing runs', function()
  local client = started(ALONE)
  client:pass(3600)
  equal(#client.asked, 0)
  equal(#client.events, 0)
  equal(next(client.settings), nil)
  equal(client:log(), '')
end)

test('a newer list is applied as a difference', function()
  local client = started()
  equal(client.asked[1], FIRST)
  client:answer(list('p1.example:7162', 'p3.example:7162', 'p4.example:7000/50'))
  equal(client:changes(), '+p4.example:7000 -p2.example:7162')
  equal(client:told(), 'p1.example:7162 p3.example:7162 p4.example:7000/50')
  -- The same again touches nothing, and another priority that one edge alone.
  client:pass(300)
  client:answer(list('p4.example:7000/50', 'p1.example:7162', 'p3.example:7162'))
  equal(client:changes(), '')
  client:pass(300)
  client:answer(list('p1.example:7162', 'p3.example:7162', 'p4.example:7000/60'))
  equal(client:changes(), '+p4.example:7000 -p4.example:7000')
  -- It holds over a login.
  client:classic_login()
  equal(client:told(), 'p1.example:7162 p3.example:7162 p4.example:7000/60')
  equal(client:log(), '')
end)

test('a broken list changes nothing', function()
  local many = {}
  for number = 1, 33 do many[number] = { host = 'q' .. number .. '.example:7162', priority = 0 } end
  local broken = {
    { nil, 'connection refused' }, { 'JSON ERROR', 'JSON ERROR: unexpected character' }, { nil, nil }, { 'text' }, { 7 }, { true }, { {} },
    { { proxies = 'p9.example:7162' } }, { { proxies = 9 } }, { { proxies = {} } }, { { proxies = { host = 'p9.example:7162' } } },
    { { proxies = { {}, 7, 'p9.example:7162', { host = 7 }, { host = {} }, { host = '' } } } }, { { proxies = many } },
    { list('wss://p9.example/links') }, { { p1 = 'p9.example:7162' } }, { list('p1.example:7162'), 'and an error' },
  }
  for number, answer in ipairs(broken) do
    local client = started()
    client:answer(answer[1], answer[2])
    equal(client.asked[2], SECOND, 'the next URL is asked')
    client:answer(answer[1], answer[2])
    equal(#client.asked, 2)
    equal(client:told(), BUILT_IN, number)
    equal(client:changes(), '', number)
    says(client:log(), '[otproxy] ' .. FIRST .. ': ')
    equal(next(client.settings), nil)
  end
end)

test('an empty list says so, and changes nothing', function()
  local client = started()
  client:answer({ proxies = {} })
  says(client:log(), '[otproxy] ' .. FIRST .. ': has no edges, so the edges stay as they are')
end)

test('a list of dead edges takes nothing away, and is not remembered', function()
  local client = started()
  client:answer(list('dead1.example:7162', 'dead2.example:7162'))
  client:pass(295)
  equal(client:told(), 'dead1.example:7162 dead2.example:7162 ' .. BUILT_IN)
  -- Another such list takes the place of the first: what is added has a bound.
  client:pass(5)
  client:answer(list('dead3.example:7162'))
  equal(client:told(), 'dead3.example:7162 ' .. BUILT_IN)
  equal(next(client.settings), nil)
  client:classic_login()
  equal(client:told(), 'dead3.example:7162 ' .. BUILT_IN)
  -- Once a link of it is up, it holds.
  client:up('dead3.example:7162')
  client:pass(5)
  equal(client:told(), 'dead3.example:7162')
end)

test('edges that fit are taken, and others left out with a line', function()
  local client = started()
  client:answer({ proxies = {
    { host = 'P1.example:7162' }, { host = 'p1.example:7162', priority = 3 }, { host = 'wss://p1.example/links', priority = 0 },
    { host = 'p4.example:0' }, { host = 'p4.example:65536' }, { host = 'p4.example' }, { host = 'p4.example:7162x' },
    { host = '[2001:db8::7]:7162' }, { host = '2001:db8::7:7162' }, { host = 'p 4.example:7162' }, { host = 'p4.example:71.62' },
    { host = ('a'):rep(300) .. ':7162' }, { host = 'p5.example:7162', priority = -1 }, { host = 'p6.example:7162', priority = 0 / 0 },
    { host = 'p7.example:7162', priority = 1 / 0 }, { host = 'p8.example:7162', priority = 'first' }, { host = 'p8.example:7162', priority = {} },
    { host = '198.51.100.7:7162', priority = '20' }, { host = 'p9.example:7162', priority = 10.5 },
  } })
  equal(client:told(), '198.51.100.7:7162/20 p1.example:7162 p9.example:7162/10')
  local log = client:log()
  says(log, FIRST .. ', left out: p1.example:7162, p4.example:0, ')
  assert(not log:find('wss'), log)
end)

test('an answer that does not come is given up, and one that comes too late is ignored', function()
  local client = started()
  client:pass(10)
  equal(#client.asked, 1)
  client:pass(5)
  equal(client.asked[2], SECOND)
  says(client:log(), FIRST .. ': no answer in 15 s')
  client:answer(list('p8.example:7162'), nil, 1)
  equal(client:changes(), '')
  client:answer(list('p1.example:7162', 'p4.example:7162'), nil, 2)
  equal(client:told(), 'p1.example:7162 p4.example:7162')
  client:answer(list('p8.example:7162'), nil, 2)
  equal(client:told(), 'p1.example:7162 p4.example:7162')
end)

test('with no answer at all the edges stay, and it is tried again', function()
  local client = started()
  client:pass(299)
  equal(#client.asked, 2)
  client:pass(1)
  equal(client.asked[3], FIRST)
  equal(client:told(), BUILT_IN)
end)

test('URLs are asked in turn, every 300 s', function()
  local client = started()
  client:answer(nil, 'connection refused')
  client:answer(list('p1.example:7162', 'p2.example:7162'))
  equal(client:told(), 'p1.example:7162 p2.example:7162')
  client:pass(299)
  equal(#client.asked, 2)
  client:pass(1)
  equal(client.asked[3], FIRST)
end)

test('while all links are gone it looks sooner, but not at each moment', function()
  local client = started()
  client:answer(list('p1.example:7162', 'p2.example:7162', 'p3.example:7162'))
  client:pass(60)
  equal(#client.asked, 1)
  client:up()
  client:pass(5)
  equal(#client.asked, 2)
  client:answer(nil, 'no network')
  client:answer(nil, 'no network')
  client:pass(25)
  equal(#client.asked, 3)
  client:pass(5)
  equal(#client.asked, 4)
  -- A link that is down tells 5000 ms.
  client:answer(nil, 'no network')
  client:answer(nil, 'no network')
  client.pings = { ['p1.example:7162'] = 5000 }
  client:pass(30)
  equal(#client.asked, 6)
end)

test('the last good list outlives a restart', function()
  local client = started()
  client:answer(list('p1.example:7162', 'p4.example:7162/50'))
  equal(client.saves, 1)
  client:unload()
  local next_one = Client.new(client.settings)
  next_one:load(MODULE)
  equal(next_one:told(), 'p1.example:7162 p4.example:7162/50')
  -- The same list is not written again.
  next_one:up('p1.example:7162')
  next_one:answer(list('p4.example:7162/50', 'p1.example:7162'))
  equal(next_one.saves, 0)
  -- A client that was built with other edges forgets it.
  local other = Client.new(client.settings)
  other:load(OTHER)
  equal(other:told(), BUILT_IN .. ' p4.example:7162')
  -- Settings that somebody edited do no harm.
  for _, text in ipairs({ 'x', ':', 'p1.example:0 0', ('p1.example:7162 0, '):rep(40), '7' }) do
    client.settings['otproxy-list'] = text
    local edited = Client.new(client.settings)
    edited:load(MODULE)
    equal(edited:told(), BUILT_IN, text)
  end
end)

test('if no edge of a remembered list lives, those of the build are told again', function()
  local client = started()
  client:answer(list('p1.example:7162', 'p9.example:7162'))
  client:unload()
  local later = Client.new(client.settings)
  later:load(MODULE)
  later:answer(nil, 'no network')
  later:answer(nil, 'no network')
  later:pass(25)
  equal(later:told(), 'p1.example:7162 p9.example:7162')
  later:pass(5)
  equal(later:told(), BUILT_IN .. ' p9.example:7162')
  -- And given up again once the list's own are back.
  later:up('p9.example:7162')
  later:answer(list('p1.example:7162', 'p9.example:7162'))
  equal(later:told(), 'p1.example:7162 p9.example:7162')
end)

test('unloading restores the client, and leaves its links alone', function()
  local client = Client.new()
  local clear = client.globals.g_proxy.clear
  client:load(MODULE)
  assert(client.globals.g_proxy.clear ~= clear)
  client:changes()
  client:unload()
  equal(client.globals.g_proxy.clear, clear)
  equal(client.globals.g_proxy.otproxy, nil)
  equal(client:changes(), '')
  client:answer(list('p8.example:7162'))
  client:pass(3600)
  equal(client:changes(), '')
  equal(#client.asked, 1)
  client.globals.g_proxy.clear()
  equal(client:told(), '')
end)

test('reloading, with or without unloading, wraps once', function()
  local client = Client.new()
  local clear = client.globals.g_proxy.clear
  for round = 1, 3 do
    client:load(MODULE)
    if round == 2 then client:unload() end
  end
  client:changes()
  client.globals.g_proxy.clear()
  equal(client:changes(), '+p1.example:7162 +p2.example:7162 +p3.example:7162 clear')
  client:pass(5)
  local due = 0
  for _, event in ipairs(client.events) do due = due + (event.callback and 1 or 0) end
  equal(due, 1, 'timers')
  client:unload()
  equal(client.globals.g_proxy.clear, clear)
end)

test('a wrapper of another module around it stays whole', function()
  local client = started()
  local ours, counted = client.globals.g_proxy.clear, 0
  client.globals.g_proxy.clear = function() counted = counted + 1; ours() end
  client:classic_login()
  equal(client:told(), BUILT_IN)
  client:unload()
  client:classic_login()
  equal(counted, 2)
  equal(client:told(), '', 'nothing is told any more')
end)

test('the module leaves nothing else in the client', function()
  local client = Client.new()
  client:load(MODULE)
  local names = {}
  for name in pairs(client.sandbox) do table.insert(names, name) end
  table.sort(names)
  equal(table.concat(names, ' '), 'init terminate')
  for name in pairs(Client.new().globals) do assert(client.globals[name] ~= nil, name) end
  local count, before = 0, 0
  for _ in pairs(client.globals) do count = count + 1 end
  for _ in pairs(Client.new().globals) do before = before + 1 end
  equal(count, before)
end)

test('what a client lacks harms nothing', function()
  for _, missing in ipairs({ 'HTTP', 'g_settings', 'g_logger', 'scheduleEvent', 'removeEvent' }) do
    local client = Client.new()
    client.globals[missing] = nil
    client:load(MODULE)
    client:up('p1.example:7162')
    assert(client:classic_login(), missing)
    equal(client:told(), BUILT_IN, missing)
    if #client.asked > 0 then client:answer(list('p1.example:7162', 'p4.example:7162')) end
    client:pass(600)
    assert(client:classic_login(), missing)
    client:unload()
    local asked = #client.asked
    client:pass(600)
    equal(#client.asked, asked, missing)
    if missing == 'HTTP' then says(client:log(), 'newer lists: this client fetches none') end
  end
  local client = Client.new()
  client.globals.g_proxy = nil
  client:load(MODULE)
  says(client:log(), 'edges: this client knows none')
  client:unload()
  equal(client:log(), '')
end)

test('what fails in a client holds up no login', function()
  local function fail() error('broken') end
  for _, broken in ipairs({ 'addProxy', 'removeProxy', 'getProxies' }) do
    local client = started()
    client.globals.g_proxy[broken] = fail
    client:answer(list('p1.example:7162', 'p4.example:7162/50'))
    client:pass(600)
    client.globals.g_proxy.clear()
    client:unload()
  end
  local client = Client.new()
  client.globals.g_proxy.addProxy = fail
  client:load(MODULE)
  client.globals.g_proxy.clear()
  equal(#client.asked, 1, 'it goes on')
  client = Client.new()
  client.globals.HTTP.getJSON = fail
  client:load(MODULE)
  assert(client:classic_login())
  says(client:log(), FIRST .. ': ')
  client = started()
  client.globals.g_settings.set = fail
  client:answer(list('p1.example:7162', 'p4.example:7162'))
  equal(client:told(), 'p1.example:7162 p4.example:7162')
  says(client:log(), '[otproxy] failed: ')
  client:pass(300)
  equal(#client.asked, 2)
  client:answer(list('p5.example:7162'))
  client:pass(295)
  client:up('p5.example:7162')
  client:pass(5)
  equal(#client.asked, 3, 'it goes on')
end)

test('an answer within the question is as good as a later one', function()
  local client = Client.new()
  client.globals.HTTP.getJSON = function(url, callback)
    table.insert(client.asked, url)
    if url == FIRST then callback(nil, 'refused') else callback(list('p4.example:7162')) end
  end
  client:load(MODULE)
  equal(client:told(), BUILT_IN .. ' p4.example:7162')
  equal(#client.asked, 2)
end)

test('the log has a line for each failure, and not for each time', function()
  local client = started()
  for _ = 1, 5 do
    client:answer(nil, 'connection refused\nby peer')
    client:answer(nil, 'timeout')
    client:pass(300)
  end
  equal(#client.lines, 2)
  says(client:log(), FIRST .. ': connection refused by peer')
  client:answer(list('p1.example:7162'))
  client:pass(300)
  client:answer(nil, 'connection refused\nby peer')
  equal(#client.lines, 1, 'it is said anew once it worked')
end)

local failed = 0
for _, case in ipairs(tests) do
  local ok, failure = xpcall(case.body, debug.traceback)
  print((ok and 'ok: ' or 'FAILED: ') .. case.name)
  if not ok then
    failed = failed + 1
    print(failure)
  end
end
print(#tests .. ' tests, ' .. failed .. ' failed')
os.exit(failed == 0 and 0 or 1)
