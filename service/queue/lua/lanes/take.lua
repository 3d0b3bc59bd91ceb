-- Takes hints of several lanes, in turns, and says what else there is.
--
-- ARGV[3] now (ms)   ARGV[4] how many in all   ARGV[5..7] how many of high, normal, low at first
-- ARGV[8] how many lanes to tell of   ARGV[9] how long the lock on a pour lasts (ms)
-- ARGV[10] how many pours to ask for   ARGV[11] how many queues; their names; then for each lane
-- that is wanted: its name, how many of it at most. Without any, this is just a look.
-- Returns {{{lane, list, id, id, ...}, ...}, {lane that has more, ...}, {lane to pour, ...}, junk}:
-- what is no hint is put aside, where Dramatiq keeps its dead messages; `junk` is how many.
local now, most, junk, total = ARGV[3], tonumber(ARGV[4]), 0, 0
local queues, wanted, room, waiting, groups, group_of = {}, {}, {}, {}, {}, {}
local first = {tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])}
for i = 12, 11 + tonumber(ARGV[11]) do
    queues[#queues + 1] = ARGV[i]
end
for i = 12 + #queues, #ARGV, 2 do
    wanted[#wanted + 1], room[ARGV[i]] = ARGV[i], tonumber(ARGV[i + 1])
end

local function id_of(message)
    if string.sub(message, 1, 15) == '{"message_id":"' and string.sub(message, 52, 52) == '"' then
        return string.match(string.sub(message, 16, 51), "^%x+%-%x+%-%x+%-%x+%-%x+$")
    end
end

local function put_aside(queue, message)
    local id = redis.sha1hex(message)
    redis.call("zadd", PREFIX .. queue .. ".XQ", now, id)
    redis.call("hset", PREFIX .. queue .. ".XQ.msgs", id, message)
    junk = junk + 1
end

local function take(lane, list, id)
    local name = lane .. ENDS[list]
    if not group_of[name] then
        group_of[name] = {lane, list}
        groups[#groups + 1] = group_of[name]
    end
    table.insert(group_of[name], id)
    room[lane], total = room[lane] - 1, total + 1
end

-- The lane, list and id of a message that lies in a front.
local function read(queue, message)
    local id, ok, fields = id_of(message), pcall(cjson.decode, message)
    if not (id and ok) or type(fields.actor_name) ~= "string"
        or not string.match(fields.actor_name, "^%l[%l%d_.-]*$") then
        return
    end
    local options = type(fields.options) == "table" and fields.options or {}
    return queue .. "/" .. fields.actor_name, LIST_OF[options.priority] or 2, id
end

-- What lies in a front and isn't wanted goes to the head of its lane: others wait behind it.
local function empty_front(queue)
    local front, left = PREFIX .. queue .. ":front", {}
    local messages = redis.call("lrange", front, 0, -1)
    if #messages > 0 and #wanted > 0 then
        redis.call("del", front)
    end
    for _, message in ipairs(messages) do
        local lane, list, id = read(queue, message)
        if #wanted == 0 then
            if lane then
                waiting[lane] = true
            end
        elseif not lane then
            put_aside(queue, message)
        elseif (room[lane] or 0) > 0 and total < most then
            take(lane, list, id)
            first[list] = first[list] - 1
        else
            left[#left + 1] = {lane, PREFIX .. lane .. ENDS[list], message}
        end
    end
    for i = #left, 1, -1 do
        redis.call("lpush", left[i][2], left[i][3])
        redis.call("sadd", LANES, left[i][1])
    end
end

local exhausted = {}
local function pop(lane, list, count)
    local key = PREFIX .. lane .. ENDS[list]
    if count < 1 or exhausted[key] then
        return
    end
    local popped = redis.call("lpop", key, count) or {}
    exhausted[key] = #popped < count
    for _, message in ipairs(popped) do
        local id = id_of(message)
        if id then
            take(lane, list, id)
        else
            put_aside(string.match(lane, "^[^/]*"), message)
        end
    end
end

-- Up to `count` of all lanes' lists of that number: an even share of each, then what is left.
local function pop_in_turns(list, count)
    if count < 1 then
        return
    end
    local until_total = math.min(most, total + count)
    local share = math.max(1, math.ceil((until_total - total) / #wanted))
    for _, at_once in ipairs({share, most}) do
        for _, lane in ipairs(wanted) do
            if total >= until_total then
                return
            end
            pop(lane, list, math.min(room[lane], at_once, until_total - total))
        end
    end
end

-- How many are left of a lane in its lists; whether there is more of it, here or in MongoDB.
local window, to_pour = window_of_one(), {}
local function look_for_more(lane)
    local left, overflow = count_in(lane), has_overflow(lane)
    if overflow and left < window / 2 and #to_pour < tonumber(ARGV[10])
        and redis.call("set", PREFIX .. lane .. ":pouring", "1", "nx", "px", ARGV[9]) then
        to_pour[#to_pour + 1] = lane
    end
    if left == 0 and not overflow then
        redis.call("srem", LANES, lane)
    end
    return left, left > 0 or overflow
end

-- Moves the next one of a lane to its queue's front, if that has room.
local function show_in_front(lane)
    local front = front_of(lane)
    if redis.call("llen", front) >= FRONT_MOST then
        return false
    end
    for list = 1, 3 do
        local message = redis.call("lpop", PREFIX .. lane .. ENDS[list])
        if message then
            redis.call("rpush", front, message)
            waiting[lane] = true
            return true
        end
    end
end

-- Who is idle wakes for what is left, one after the other: of each lane one, then a second one...
local function fill_fronts(left)
    for _ = 1, FRONT_MOST do
        for _, lane in ipairs(wanted) do
            if left[lane] > 0 and show_in_front(lane) then
                left[lane] = left[lane] - 1
                if left[lane] == 0 and not has_overflow(lane) then
                    redis.call("srem", LANES, lane)
                end
            end
        end
    end
end

if #queues > 0 then
    local fronts = {}
    for i, queue in ipairs(queues) do
        fronts[i] = PREFIX .. queue .. ":front"
    end
    if redis.call("exists", unpack(fronts)) > 0 then
        for _, queue in ipairs(queues) do
            empty_front(queue)
        end
    end
end
if #wanted > 0 then
    for list = 1, 3 do
        pop_in_turns(list, first[list])
    end
    for list = 1, 3 do
        pop_in_turns(list, most - total)
    end
end
local left = {}
for _, lane in ipairs(wanted) do
    left[lane] = look_for_more(lane)
end
fill_fronts(left)
for _, lane in ipairs(redis.call("srandmember", LANES, ARGV[8])) do
    if #wanted > 0 or select(2, look_for_more(lane)) then
        waiting[lane] = true
    end
end
local more = {}
for lane in pairs(waiting) do
    more[#more + 1] = lane
end
return {groups, more, to_pour, junk}
