-- What the scripts of the lanes share; it stands before each of them.
--
-- KEYS[1] set of the lanes ("queue/type") that have hints in their lists, or an overflow
-- ARGV[1] what all keys begin with   ARGV[2] window: how many hints a lane may have
-- A lane's keys: its name with :high, nothing, :low (lists of messages), :overflow (MongoDB has
-- more of it), :pouring (somebody fetches that). A queue's key: :front (a list on which who is idle
-- waits).
local LANES, PREFIX, WINDOW = KEYS[1], ARGV[1], tonumber(ARGV[2])
local ENDS = {":high", "", ":low"}
local LIST_OF = {high = 1, normal = 2, low = 3}
local FRONT_MOST = 4
local ALL_WINDOWS, LEAST_WINDOW = 10, 64

-- All lanes together hold ten windows: where there are more, each has a smaller one.
local function window_of_one()
    local lanes = math.max(1, redis.call("scard", LANES))
    local share = math.max(LEAST_WINDOW, math.floor(ALL_WINDOWS * WINDOW / lanes))
    return math.min(WINDOW, share)
end

local function front_of(lane)
    return PREFIX .. string.match(lane, "^[^/]*") .. ":front"
end

local function count_in(lane)
    local base = PREFIX .. lane
    return redis.call("llen", base .. ":high") + redis.call("llen", base)
        + redis.call("llen", base .. ":low")
end

local function has_overflow(lane)
    return redis.call("exists", PREFIX .. lane .. ":overflow") == 1
end
