-- Puts hints back to the heads of their lanes, in their order; or, as far as there is room, to the
-- ends of their queues' fronts.
--
-- ARGV[3] "1": to the fronts; then triples: lane, list (1 high, 2 normal, 3 low), message
for at = #ARGV - 2, 4, -3 do
    local lane, front = ARGV[at], front_of(ARGV[at])
    if ARGV[3] == "1" and redis.call("llen", front) < FRONT_MOST then
        redis.call("rpush", front, ARGV[at + 2])
    else
        redis.call("lpush", PREFIX .. lane .. ENDS[tonumber(ARGV[at + 1])], ARGV[at + 2])
        redis.call("sadd", LANES, lane)
    end
end
