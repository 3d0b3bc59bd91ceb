-- Takes messages off a queue; they stay known to Redis until they are acked.
--
-- KEYS[1] hash: message id -> message          KEYS[2..4] lists of ids, in the order to take from
-- KEYS[5] overflow flag   KEYS[6] set of ids fetched and not acked   KEYS[7] heartbeats of brokers
-- ARGV[1] broker id   ARGV[2] now (ms)   ARGV[3..5] how many of each list at first
-- ARGV[6] how many in all   ARGV[7] an id popped before, or ""
-- Returns {overflow (0 or 1), id, message or false, id, message or false, ...}.
redis.call("zadd", KEYS[7], ARGV[2], ARGV[1])
local ids = {}
local total = tonumber(ARGV[6])
if ARGV[7] ~= "" then
    ids[1] = ARGV[7]
end
local exhausted = {}
local function take(i, most)
    if most < 1 or exhausted[i] then
        return
    end
    local popped = redis.call("lpop", KEYS[1 + i], most) or {}
    for j = 1, #popped do
        ids[#ids + 1] = popped[j]
    end
    exhausted[i] = #popped < most
end
for i = 1, 3 do
    take(i, math.min(tonumber(ARGV[2 + i]), total - #ids))
end
for i = 1, 3 do
    take(i, total - #ids)
end
local answer = {redis.call("exists", KEYS[5])}
for i = 1, #ids do
    redis.call("sadd", KEYS[6], ids[i])
    answer[2 * i] = ids[i]
    answer[2 * i + 1] = redis.call("hget", KEYS[1], ids[i])
end
return answer
