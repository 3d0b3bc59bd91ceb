-- Puts messages back to the head of their list, in their order; only those that are still this
-- consumer's own.
--
-- KEYS[1] list of ids   KEYS[2] set of ids fetched and not acked
-- ARGV: ids
for i = #ARGV, 1, -1 do
    if redis.call("srem", KEYS[2], ARGV[i]) == 1 then
        redis.call("lpush", KEYS[1], ARGV[i])
    end
end
