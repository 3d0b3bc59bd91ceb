-- Adds hints to their lanes, as far as each one's window goes.
--
-- ARGV[3] "1": past the overflow, for who fetches from MongoDB what it stands for; then for each
-- lane: its name, how many, and for each of them: list (1 high, 2 normal, 3 low), message.
-- Returns how many were added: the first ones of each lane. What isn't added sets the overflow;
-- while it is set nothing is added, so that nothing overtakes the older jobs that wait in MongoDB.
local CHUNK = 1000
local past_overflow = ARGV[3] == "1"
local window = window_of_one()

local function append(lane, at, count)
    local lists = {{}, {}, {}}
    for i = 0, count - 1 do
        local list = lists[tonumber(ARGV[at + 2 * i])]
        list[#list + 1] = ARGV[at + 2 * i + 1]
    end
    for number = 1, 3 do
        local list = lists[number]
        for from = 1, #list, CHUNK do
            local last = math.min(from + CHUNK - 1, #list)
            redis.call("rpush", PREFIX .. lane .. ENDS[number], unpack(list, from, last))
        end
    end
end

-- The first ones of a lane that is empty go where somebody may be waiting.
local function to_front(lane, at, most)
    local front = front_of(lane)
    local count = math.min(most, FRONT_MOST - redis.call("llen", front))
    for i = 0, count - 1 do
        redis.call("rpush", front, ARGV[at + 2 * i + 1])
    end
    return math.max(0, count)
end

local function push(lane, at, count)
    if not past_overflow and has_overflow(lane) then
        return 0
    end
    local there = count_in(lane)
    local added = math.max(0, math.min(count, window - there))
    local ahead = there == 0 and to_front(lane, at, added) or 0
    append(lane, at + 2 * ahead, added - ahead)
    if added < count then
        redis.call("set", PREFIX .. lane .. ":overflow", "1")
    end
    if there + added > ahead or added < count then
        redis.call("sadd", LANES, lane)
    end
    return added
end

local at, added = 4, 0
while at < #ARGV do
    local count = tonumber(ARGV[at + 1])
    added = added + push(ARGV[at], at + 2, count)
    at = at + 2 + 2 * count
end
return added
