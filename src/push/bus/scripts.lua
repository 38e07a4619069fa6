-- What one Redis does for all hosts, each of these in one step. KEYS are the stream, the state (a hash: epoch, offset, base,
-- lineage), the retained messages (a hash), the hosts (a hash), and a publisher's key or the stream again.
-- Offsets are whole numbers below 2^53, as Lua has them.

local log, state, retained, hosts, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local JUMP = 1048576
local KNOWN = 64
local FURTHEST = 2 ^ 52

local function number(text)
  return string.format('%.0f', text)
end

local function now()
  local time = redis.call('TIME')
  return number(time[1] * 1000 + math.floor(time[2] / 1000))
end

-- The offset of the entry at one end of the stream.
local function last_entry()
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return last and tonumber(string.match(last[1], '^%d+')) or 0
end

-- What the next one has to be behind, also where the last one is not there any more. Somebody else may have put one so far up
-- that Lua cannot count there: behind that Redis takes none, and says so.
local function last_id()
  if redis.call('EXISTS', log) == 0 then return 0 end
  local info = redis.call('XINFO', 'STREAM', log)
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then
      local last = tonumber(string.match(info[at + 1], '^%d+'))
      return last < FURTHEST and last or 0
    end
  end
  return last_entry()
end

-- Epoch and offset; where there are none they begin behind all that anybody has heard, as far as that is known here.
local function begun(candidate, heard)
  local found = redis.call('HMGET', state, 'epoch', 'offset')
  if found[1] and found[2] then return found[1], tonumber(found[2]) end
  local last = math.max(tonumber(heard), last_id())
  if last > 0 then last = last + JUMP end
  redis.call('HSET', state, 'epoch', candidate, 'offset', number(last), 'base', number(last), 'lineage', '')
  return candidate, last
end

-- ARGV: candidate, heard, length, lifetime of the key in seconds, hash or '', how many; and for each namespace, topic,
-- '1' with an event, event, data, '1' if it is retained, mark.
local function publish()
  if ARGV[6] ~= '' then
    local used = redis.call('GET', key)
    if used then
      local hash, epoch, offset = string.match(used, '^(%d+) (%d+) (%d+)$')
      if hash ~= ARGV[6] then return {'reused'} end
      return {'repeated', epoch, offset}
    end
  end
  local epoch, offset = begun(ARGV[2], ARGV[3])
  -- A stream that somebody has put back has more than the state says.
  local last = last_id()
  if last > offset then offset = last end
  local time = now()
  local is_there, first = false, offset
  local done, wrong = pcall(function()
    for at = 8, #ARGV, 7 do
      offset = offset + 1
      local fields = {'p', epoch, 'm', time, 'k', ARGV[at + 6], 'n', ARGV[at], 't', ARGV[at + 1], 'd', ARGV[at + 4]}
      if ARGV[at + 2] == '1' then
        fields[#fields + 1] = 'e'
        fields[#fields + 1] = ARGV[at + 3]
      end
      redis.call('XADD', log, 'MAXLEN', '~', ARGV[4], number(offset) .. '-0', unpack(fields))
      is_there = true
      redis.call('HSET', state, 'offset', number(offset))
    end
    -- As soon as it is there: who tries again must not publish it again, whatever fails below.
    if ARGV[6] ~= '' then
      redis.call('SET', key, ARGV[6] .. ' ' .. epoch .. ' ' .. number(offset), 'EX', ARGV[5])
    end
    for at = 8, #ARGV, 7 do
      first = first + 1
      if ARGV[at + 5] == '1' then
        local namespace, event = ARGV[at], ARGV[at + 3]
        local length = ARGV[at + 2] == '1' and #event or -1
        local head = table.concat({number(first), time, ARGV[at + 6], length}, ' ')
        redis.call('HSET', retained, #namespace .. ':' .. namespace .. ARGV[at + 1], head .. '\n' .. event .. ARGV[at + 4])
      end
    end
  end)
  if not done then
    -- What a script has done stays done when it fails: then nobody may be told that it was not.
    if not is_there then error(wrong, 0) end
    return {'partly', type(wrong) == 'table' and wrong.err or tostring(wrong)}
  end
  return {'published', epoch, number(offset)}
end

-- ARGV: candidate, heard, host, subscribers, milliseconds after which a host is forgotten. Answers how many each has.
local function tick()
  local epoch, offset = begun(ARGV[2], ARGV[3])
  local time = now()
  redis.call('HSET', hosts, ARGV[4], time .. ' ' .. ARGV[5])
  local there = {epoch, number(offset)}
  local all = redis.call('HGETALL', hosts)
  for at = 1, #all, 2 do
    local seen, subscribers = string.match(all[at + 1], '^(%d+) (%d+)$')
    local age = seen and math.abs(time - seen)
    if age and age <= tonumber(ARGV[6]) then
      there[#there + 1] = all[at]
      there[#there + 1] = subscribers
    else
      redis.call('HDEL', hosts, all[at])
    end
  end
  return there
end

-- ARGV: the offset that the host has come to. How things stand, and what is in that place.
local function look()
  local found = redis.call('HMGET', state, 'epoch', 'offset', 'base', 'lineage')
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local there = redis.call('XRANGE', log, ARGV[2] .. '-0', ARGV[2] .. '-0')[1]
  local mark = ''
  if there then
    for at = 1, #there[2], 2 do
      if there[2][at] == 'k' then mark = there[2][at + 1] end
    end
  end
  return {
    found[1] or '', found[2] or '0', found[3] or '0', found[4] or '',
    first and string.match(first[1], '^%d+') or '0', number(last_entry()), mark, now(),
  }
end

-- ARGV: the epoch that has lost something, candidate, how far the host has come, how far that epoch is the same everywhere.
-- Another begins behind all that anybody has heard, unless somebody else was faster.
local function renew()
  local found = redis.call('HMGET', state, 'epoch', 'offset', 'lineage')
  if found[1] ~= ARGV[2] then return 0 end
  local base = math.max(tonumber(found[2]) or 0, tonumber(ARGV[4]), last_id()) + JUMP
  local lineage = {}
  for one in string.gmatch((found[3] or '') .. ' ' .. ARGV[2] .. ':' .. ARGV[5], '%S+') do lineage[#lineage + 1] = one end
  while #lineage > KNOWN do table.remove(lineage, 1) end
  redis.call('HSET', state, 'epoch', ARGV[3], 'offset', number(base), 'base', number(base),
    'lineage', table.concat(lineage, ' '))
  return 1
end

local calls = {publish = publish, tick = tick, look = look, renew = renew}
return calls[ARGV[1]]()
