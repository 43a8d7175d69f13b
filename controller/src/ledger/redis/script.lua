-- Carries out what one controller orders, all at once, by this server's clock alone: bucket.rs and home.rs of
-- ringmail-proto, in Lua. A test compares the two.
--
-- KEYS: epoch, incarnations, then one bucket for each order.
-- ARGV: run ID of the server, the epoch that the caller is in (empty: it begins), its incarnation, how long an incarnation
-- lives unheard, for how long a new epoch only listens (both in microseconds), how long a bucket is kept while anything is
-- leased from it, and at most (both in milliseconds); then ten for each order: spent, returned, wanted, sharers, cap (or
-- `-`), debit, claimed; tokens and seconds of the limit's period, and its burst. A limit without tokens is one on what is
-- under way at once: those that were taken come back.
-- Answers: whether the caller is in this epoch and alive, the time, until the epoch opens, the epoch; then four for each
-- order: leased, unspent, wait, sharers.
--
-- A bucket is a hash: its level, as of when (`at`), what was debited before its epoch opened (`told`), and for each
-- incarnation what it has leased out, how many sessions speak to it of the bucket, and when it last wanted more than it got.

local run, epoch, me = ARGV[1], ARGV[2], ARGV[3]
local lives, listens = tonumber(ARGV[4]), tonumber(ARGV[5])
local held, kept = tonumber(ARGV[6]), tonumber(ARGV[7])
local FIXED, EACH = 7, 10
-- Of a token: what many small refills may lack.
local ROUNDING = 1e-6
-- Microseconds, after which it is looked for tokens that came back to another controller.
local LOOK_AGAIN = 20000
-- Whoever got less than it wanted so long ago, in microseconds, asks again: it shares by the number of its sessions.
local RIVALS = 150000

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- Another server, or this one started anew, or emptied: nobody knows what was leased. A clock that was set back is another's.
local found = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'opens')
local current, opens = found[2], tonumber(found[3] or '')
if found[1] ~= run or not current or not opens or opens > now + listens then
  opens = now + listens
  current = string.format('%.0f-%s', now, me)
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', current, 'opens', string.format('%.0f', opens))
end

-- When each incarnation that was heard of ends.
local ends = {}
local heard = redis.call('HGETALL', KEYS[2])
for n = 1, #heard, 2 do
  local at = tonumber(heard[n + 1])
  if at > now then
    at = now
    redis.call('HSET', KEYS[2], heard[n], string.format('%.0f', now))
  end
  ends[heard[n]] = at + lives
end
local function is_gone(incarnation)
  return not ends[incarnation] or ends[incarnation] < now
end

local opens_in = math.max(opens - now, 0)
if epoch == '' then
  for incarnation in pairs(ends) do
    if is_gone(incarnation) then
      redis.call('HDEL', KEYS[2], incarnation)
    end
  end
elseif epoch ~= current or is_gone(me) then
  return { 0, now, opens_in, current }
end
redis.call('HSET', KEYS[2], me, string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], kept)
redis.call('PEXPIRE', KEYS[2], kept)

local function read(key, burst)
  local bucket = { level = burst, at = now, told = 0, mine = 0, unmet = 0, gone = {} }
  bucket.leased, bucket.sharers, bucket.rivals, bucket.freed, bucket.freed_at = 0, 0, 0, 0, 0
  local fields = redis.call('HGETALL', key)
  bucket.is_new = #fields == 0
  for n = 1, #fields, 2 do
    local field, value = fields[n], fields[n + 1]
    if field == 'level' or field == 'at' or field == 'told' then
      bucket[field] = tonumber(value)
    else
      local leased, sharers, unmet = string.match(value, '^(%d+) (%d+) (%d+)$')
      leased, sharers, unmet = tonumber(leased), tonumber(sharers), tonumber(unmet)
      if field == me then
        bucket.mine, bucket.unmet = leased, unmet
        bucket.is_mine = true
      elseif is_gone(field) then
        bucket.gone[#bucket.gone + 1] = field
        bucket.freed = bucket.freed + leased
        bucket.freed_at = math.max(bucket.freed_at, ends[field] or now)
      else
        bucket.leased = bucket.leased + leased
        bucket.sharers = bucket.sharers + sharers
        if unmet + RIVALS > now then
          bucket.rivals = bucket.rivals + sharers
        end
      end
    end
  end
  -- Nobody waits until a clock that was set back is where it was.
  bucket.at = math.min(bucket.at, now)
  return bucket
end

local function refill(bucket, per_second, burst, till)
  local passed = math.max(till - bucket.at, 0)
  bucket.at = math.max(bucket.at, till)
  local room = math.max(burst - (bucket.leased + bucket.mine + bucket.freed), 0)
  bucket.level = math.min(bucket.level + per_second * (passed / 1000000), room)
end

local function write(key, bucket, sharers, per_second, burst)
  local has_mine = bucket.mine > 0 or sharers > 0
  if bucket.level >= burst and not has_mine and bucket.leased + bucket.sharers == 0 then
    if not bucket.is_new then
      redis.call('DEL', key)
    end
    return
  end
  local fields = {
    'level', string.format('%.17g', bucket.level),
    'at', string.format('%.0f', bucket.at),
    'told', string.format('%.0f', bucket.told),
  }
  if has_mine then
    fields[7], fields[8] = me, string.format('%.0f %.0f %.0f', bucket.mine, sharers, bucket.unmet)
  elseif bucket.is_mine then
    bucket.gone[#bucket.gone + 1] = me
  end
  redis.call('HSET', key, unpack(fields))
  for _, incarnation in ipairs(bucket.gone) do
    redis.call('HDEL', key, incarnation)
  end
  -- Until it is full again, and whatever is leased now has ended or was heard of.
  local till_full = per_second > 0 and (burst - bucket.level) / per_second * 1000 or kept
  local still = bucket.mine + bucket.leased > 0 and held or lives / 1000
  redis.call('PEXPIRE', key, string.format('%.0f', math.min(till_full + still, kept)))
end

local reply = { 1, now, opens_in, current }
for order = 0, #KEYS - 3 do
  local key, first = KEYS[order + 3], FIXED + order * EACH
  local spent, returned, wanted = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3])
  local sharers, cap, debit = tonumber(ARGV[first + 4]), tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
  local claimed, burst = tonumber(ARGV[first + 7]), tonumber(ARGV[first + 10])
  local per_second = tonumber(ARGV[first + 8]) / tonumber(ARGV[first + 9])
  local is_at_once = per_second == 0
  local bucket = read(key, burst)
  -- First of all: what was leased until now kept its room until now, or until whoever had leased it was gone.
  if is_at_once then
    bucket.level = bucket.level + bucket.freed
    bucket.freed = 0
  elseif bucket.freed > 0 then
    refill(bucket, per_second, burst, math.min(bucket.freed_at, now))
    bucket.freed = 0
  end
  refill(bucket, per_second, burst, now)
  bucket.mine = math.max(bucket.mine - spent, 0) + claimed
  bucket.level = bucket.level - claimed
  returned = math.min(returned, bucket.mine)
  bucket.mine = bucket.mine - returned
  bucket.level = bucket.level + returned
  if cap then
    local left = math.max(cap - (bucket.mine + bucket.leased), 0) - bucket.told
    bucket.level = math.min(bucket.level, left)
  end
  if debit > 0 then
    bucket.level = math.max(bucket.level - debit, -burst)
  end
  bucket.told = opens > now and bucket.told + debit or 0
  local leased = 0
  if opens <= now and wanted > 0 then
    local whole = math.floor(math.max(bucket.level + ROUNDING, 0))
    local part = math.max(sharers, 1)
    leased = math.min(wanted, math.ceil(whole * part / (part + bucket.rivals)))
    bucket.unmet = leased < wanted and now or 0
    bucket.level = bucket.level - leased
    bucket.mine = bucket.mine + leased
  end
  write(key, bucket, sharers, per_second, burst)
  local whole = math.floor(math.max(bucket.level + ROUNDING, 0))
  local answer = #reply
  reply[answer + 1] = leased
  local wait
  if is_at_once then
    reply[answer + 2] = string.format('%.17g', math.max(bucket.level, 0))
    wait = LOOK_AGAIN
  else
    reply[answer + 2] = string.format('%.17g', bucket.level + bucket.mine + bucket.leased)
    wait = math.ceil((1 - (bucket.level - whole)) / per_second * 1000000)
  end
  if opens > now then
    wait = opens - now
  elseif leased < wanted and whole > 0 then
    -- What is left is for others, unless they do not come.
    wait = 0
  end
  reply[answer + 3] = wait
  reply[answer + 4] = bucket.sharers + sharers
end
return reply
