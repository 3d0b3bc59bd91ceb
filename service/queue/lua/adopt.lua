-- Takes messages off the lists of queues that only processes of a former version use.
--
-- ARGV[1] what all keys begin with   ARGV[2] how many in all; then the names of the queues
-- Returns {queue, message or false, queue, message or false, ...}. Where the lists of a queue are
-- empty, its overflow ends too, so that the former version's web sends to them again.
local prefix, left, answer, keys = ARGV[1], tonumber(ARGV[2]), {}, {}
for i = 3, #ARGV do
    for _, ending in ipairs({":high", "", ":low", ".overflow"}) do
        keys[#keys + 1] = prefix .. ARGV[i] .. ending
    end
end
if #keys == 0 or redis.call("exists", unpack(keys)) == 0 then
    return answer
end
for i = 3, #ARGV do
    local base = prefix .. ARGV[i]
    for _, ending in ipairs({":high", "", ":low"}) do
        local ids = left > 0 and redis.call("lpop", base .. ending, left) or {}
        for _, id in ipairs(ids) do
            answer[#answer + 1] = ARGV[i]
            answer[#answer + 1] = redis.call("hget", base .. ".msgs", id)
            redis.call("hdel", base .. ".msgs", id)
        end
        left = left - #ids
    end
    if left > 0 then
        redis.call("del", base .. ".overflow")
    end
end
return answer
