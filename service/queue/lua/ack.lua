-- Removes messages that are done; only those that this broker still has.
--
-- KEYS[1] hash: message id -> message   KEYS[2] set of ids that it fetched and hasn't acked
-- ARGV: ids
for i = 1, #ARGV do
    if redis.call("srem", KEYS[2], ARGV[i]) == 1 then
        redis.call("hdel", KEYS[1], ARGV[i])
    end
end
