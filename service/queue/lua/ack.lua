-- Removes messages that are done; only those that are still this consumer's own.
--
-- KEYS[1] hash: message id -> message   KEYS[2] set of ids fetched and not acked
-- ARGV: ids
for i = 1, #ARGV do
    if redis.call("srem", KEYS[2], ARGV[i]) == 1 then
        redis.call("hdel", KEYS[1], ARGV[i])
    end
end
