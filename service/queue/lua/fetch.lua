-- Takes messages off a queue; they stay known to Redis until they are acked.
--
-- KEYS[1] hash: message id -> message          KEYS[2..4] lists of ids, in the order to take from
-- KEYS[5] set of ids fetched and not acked     KEYS[6] heartbeats of brokers
-- ARGV[1] broker id   ARGV[2] now (ms)   ARGV[3] how many in all
-- Returns {id, message or false, id, message or false, ...}.
redis.call("zadd", KEYS[6], ARGV[2], ARGV[1])
local answer, left = {}, tonumber(ARGV[3])
for i = 2, 4 do
    local ids = left > 0 and redis.call("lpop", KEYS[i], left) or {}
    for _, id in ipairs(ids) do
        redis.call("sadd", KEYS[5], id)
        answer[#answer + 1] = id
        answer[#answer + 1] = redis.call("hget", KEYS[1], id)
    end
    left = left - #ids
end
return answer
