-- Adds messages to a queue, as far as its window goes.
--
-- KEYS[1] hash: message id -> message          KEYS[2..4] lists of ids: high, normal, low
-- KEYS[5] overflow: there are jobs in MongoDB that have no message here
-- ARGV[1] window; then triples: list (1 high, 2 normal, 3 low), id, message
-- Returns how many were added. What isn't added sets the overflow; while it is set nothing is
-- added, so that nothing overtakes the older jobs that wait in MongoDB.
local count = (#ARGV - 1) / 3
if redis.call("exists", KEYS[5]) == 1 then
    return 0
end
local room = tonumber(ARGV[1])
    - redis.call("llen", KEYS[2]) - redis.call("llen", KEYS[3]) - redis.call("llen", KEYS[4])
local added = math.max(0, math.min(count, room))
for i = 1, added do
    local at = 3 * i - 1
    redis.call("hset", KEYS[1], ARGV[at + 1], ARGV[at + 2])
    redis.call("rpush", KEYS[1 + tonumber(ARGV[at])], ARGV[at + 1])
end
if added < count then
    redis.call("set", KEYS[5], "1")
end
return added
