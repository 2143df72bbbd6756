-- The balancer of an nginx whose upstreams change without a reload.
--
-- confsync keeps the members of each upstream in a table: a file that every worker maps.
-- For each try of a request `pick` chooses a member, counts the try in a second mapped
-- file, and looks at the table's sequence number again; when the request is logged, `log`
-- takes the count back. So confsync knows, to the request, what is in flight to a backend
-- that has left, and a change of members is one small write, seen at the next pick.
--
-- The layout of the files is described in confsync/src/proxy/nginx/membership/layout.rs.
--
-- What must hold:
-- * Nothing here can end a worker. Every call that may fail is checked; what is mapped has
--   its pages already (the files never shrink); what is read may be torn, so it is checked
--   before use.
-- * A member is counted before the sequence number is looked at for the second time. The
--   order of the two in the processor is the business of confsync's `membarrier`, in the
--   compiler of `barrier` below.
-- * Without the files nginx uses the `server` lines of its own configuration. With files
--   that cannot be used, the request fails: the lines may be out of date.
-- * No directive but those that confsync writes is needed, and no name is taken in Lua but
--   package.loaded["confsync.membership"].

local ffi = require "ffi"
local bit = require "bit"
local base = require "resty.core.base"
local balancer = require "ngx.balancer"

local C, cast = ffi.C, ffi.cast
local band, bxor, lshift, rshift, rol = bit.band, bit.bxor, bit.lshift, bit.rshift, bit.rol

assert(ffi.abi("64bit") and ffi.abi("le"), "confsync needs a 64-bit, little-endian machine")

-- Names of our own, so that no declaration of another Lua module is in the way.
ffi.cdef [[
struct confsync_flock { short type; short whence; int64_t start; int64_t length; int32_t pid; };
int confsync_open(const char *path, int flags, ...) __asm__("open");
int confsync_close(int fd) __asm__("close");
int64_t confsync_lseek(int fd, int64_t offset, int whence) __asm__("lseek");
void *confsync_mmap(void *at, size_t size, int protection, int flags, int fd, int64_t offset)
    __asm__("mmap");
int confsync_munmap(void *at, size_t size) __asm__("munmap");
int confsync_fcntl(int fd, int command, ...) __asm__("fcntl");
int confsync_posix_fallocate(int fd, int64_t offset, int64_t size) __asm__("posix_fallocate");
long confsync_syscall(long number, ...) __asm__("syscall");
char *confsync_strerror(int error) __asm__("strerror");
char *confsync_getenv(const char *name) __asm__("getenv");
int confsync_setenv(const char *name, const char *value, int overwrite) __asm__("setenv");
]]

local O_RDONLY, O_RDWR, O_CLOEXEC, SEEK_END = 0, 2, 0x80000, 2
local PROT_READ, PROT_READ_WRITE, MAP_SHARED = 1, 3, 1
local F_OFD_SETLK, F_WRLCK, SEEK_SET, ENOENT = 37, 1, 0, 2
-- membarrier(2); the numbers are those of each kind of machine.
local MEMBARRIER = ({ x64 = 324, arm64 = 283 })[jit.arch]
local REGISTER_GLOBAL_EXPEDITED = 4

-- The layout.
local PAGE = 4096
local CLASSES = 9
local HEAD, HEAD_WORDS = 16, 21 -- the head's first word and how many there are
local SLOT = 128
local MEMBER = 1
local COUNTS_DATA, HEALTH, CELL = 8192, 32, 16
local WORKER_DATA, WORKER = 64, 16

local NGX_BUSY = -3 -- "no live upstreams": nginx answers 502
local DRAWS = 16
local SCAN = 128
local DAY = 86400000 -- in milliseconds

local M = {}
local pools = {}
-- What is in flight: the request's id → its tries; main request and subrequests together,
-- because a subrequest is never logged.
local requests, in_flight = {}, 0

local scratch = ffi.new("uint8_t[1]")

-- Keeps LuaJIT from merging or moving loads and stores of mapped memory across it:
-- `volatile` does nothing there, but every ffi.fill is a barrier to its optimiser.
local function barrier()
    ffi.fill(scratch, 1)
end

-- A generator of our own: workers share the seed of math.random, and a user may set it.
local seed = bxor(ngx.worker.pid() * 2654435761 % 2 ^ 32, ngx.now() * 1000 % 2 ^ 31)
seed = bxor(seed, 0) ~= 0 and bxor(seed, 0) or 1

local function random(n)
    seed = bxor(seed, lshift(seed, 13))
    seed = bxor(seed, rshift(seed, 17))
    seed = bxor(seed, lshift(seed, 5))
    return band(seed, 0x7fffffff) % n
end

local function uniform()
    return random(0x40000000) / 0x40000000
end

local reported = -1000

-- At most one line a second, for a fault may be met by every request.
local function report(...)
    if ngx.now() - reported >= 1 then
        reported = ngx.now()
        ngx.log(ngx.ERR, "confsync: ", ...)
    end
end

local function system_error()
    local number = ffi.errno()
    return ffi.string(C.confsync_strerror(number)), number == ENOENT
end

------------------------------------------------------------------------------------------
-- Files

-- Maps a whole file. Returns its bytes, its size, and the open descriptor, or nil, why, and
-- whether there is no such file.
local function map(path, writable, magic)
    local fd = C.confsync_open(path, bit.bor(writable and O_RDWR or O_RDONLY, O_CLOEXEC))
    if fd < 0 then
        local why, absent = system_error()
        return nil, "cannot open " .. path .. ": " .. why, absent
    end
    local size = tonumber(C.confsync_lseek(fd, 0, SEEK_END))
    if size < PAGE then
        C.confsync_close(fd)
        return nil, path .. " is too short"
    end
    local protection = writable and PROT_READ_WRITE or PROT_READ
    local at = C.confsync_mmap(nil, size, protection, MAP_SHARED, fd, 0)
    if cast("intptr_t", at) == -1 then
        local why = system_error()
        C.confsync_close(fd)
        return nil, "cannot map " .. path .. ": " .. why
    end
    local bytes = ffi.gc(cast("uint8_t *", at), function(p) C.confsync_munmap(p, size) end)
    if ffi.string(bytes, 8) ~= magic then
        C.confsync_close(fd)
        return nil, path .. " is not of this version of confsync"
    end
    return bytes, size, fd
end

-- The column of this process in every file of counts. Its lock ends with the process,
-- however that ends, and what the column says is void from then on.
local worker

local function claim(folder)
    local path = folder .. "/workers"
    local bytes, size, fd = map(path, true, "CFSYNCW1")
    if not bytes then
        return nil, size, fd
    end
    local header = cast("uint32_t *", bytes)
    local columns = tonumber(header[2])
    if size < WORKER_DATA + columns * WORKER then
        C.confsync_close(fd)
        return nil, path .. " is too short"
    end
    local registered = MEMBARRIER and C.confsync_syscall(
        MEMBARRIER, ffi.new("long", REGISTER_GLOBAL_EXPEDITED), ffi.new("long", 0)) == 0
    local lock = ffi.new("struct confsync_flock", F_WRLCK, SEEK_SET, 0, 1, 0)
    for column = 0, columns - 1 do
        lock.start = column
        if C.confsync_fcntl(fd, F_OFD_SETLK, lock) == 0 then
            local record = cast("uint32_t *", bytes + WORKER_DATA + column * WORKER)
            record[1] = registered and 1 or 0
            barrier()
            record[0] = ngx.worker.pid()
            return { bytes = bytes, header = header, fd = fd, columns = columns, column = column }
        end
    end
    -- The descriptor stays open: closing it would give up nothing, and nothing was gained.
    return { bytes = bytes, header = header, fd = fd, columns = columns }
end

-- With `lua_code_cache off` every request has a Lua machine of its own in the one process.
-- They share its column, which the process's environment remembers.
local function claim_once(folder)
    local name = "CONFSYNC_WORKER"
    local kept = C.confsync_getenv(name)
    local pid, fd, column = string.match(kept ~= nil and ffi.string(kept) or "", "^(%d+):(%d+):(%d+)$")
    if tonumber(pid) ~= ngx.worker.pid() then
        local claimed, why, absent = claim(folder)
        if claimed and claimed.column then
            local value = table.concat({ ngx.worker.pid(), claimed.fd, claimed.column }, ":")
            C.confsync_setenv(name, value, 1)
        end
        return claimed, why, absent
    end
    local bytes, why, again = map(folder .. "/workers", true, "CFSYNCW1")
    if not bytes then
        return nil, why, again
    end
    C.confsync_close(again)
    local header = cast("uint32_t *", bytes)
    return { bytes = bytes, header = header, fd = tonumber(fd), columns = tonumber(header[2]),
             column = tonumber(column) }
end

-- From now on confsync cannot rely on the counts, and knows it.
local function uncounted(why)
    worker.header[4] = 1
    report("requests are not counted: ", why)
end

------------------------------------------------------------------------------------------
-- An upstream's table

local function open_members(pool, path)
    local bytes, size, fd = map(path, false, "CFSYNCM1")
    if not bytes then
        return nil, size, fd
    end
    C.confsync_close(fd)
    local words = cast("uint32_t *", bytes)
    local capacity = tonumber(words[2])
    local order = PAGE
    local slots = order + CLASSES * capacity * 4
    if size < slots + capacity * SLOT then
        return nil, path .. " is too short"
    end
    pool.members, pool.words, pool.capacity = bytes, words, capacity
    pool.order = cast("uint32_t *", bytes + order)
    pool.slot_bytes = bytes + slots
    return true
end

local function open_counts(pool, path)
    local bytes, size, fd = map(path, true, "CFSYNCC1")
    if not bytes then
        return nil, size, fd
    end
    local words = cast("uint32_t *", bytes)
    local capacity = pool.capacity
    local columns = COUNTS_DATA + capacity * HEALTH
    pool.counts, pool.counts_fd = bytes, fd
    if words[2] ~= capacity or words[3] ~= worker.columns
        or words[4] ~= pool.words[4] or words[5] ~= pool.words[5]
        or size < columns + worker.columns * capacity * CELL then
        C.confsync_close(fd)
        return nil, path .. " does not belong to its table"
    end
    pool.allocated = words + 16 -- how much of each column has its pages, in slots
    pool.health = cast("double *", bytes + COUNTS_DATA)
    pool.columns_at = columns
    return true
end

local function column_words(pool, column)
    return cast("uint32_t *", pool.counts + pool.columns_at + column * pool.capacity * CELL)
end

-- Makes sure that our column has pages for the first `slots` slots: storing where the disk
-- has no page left would end the worker.
local function allocate(pool, slots)
    local column = worker.column
    local have = tonumber(pool.allocated[column])
    local want = math.min(math.ceil(slots * CELL / PAGE) * PAGE / CELL, pool.capacity)
    if have < want then
        local at = pool.columns_at + column * pool.capacity * CELL
        local failed = C.confsync_posix_fallocate(pool.counts_fd, at, want * CELL)
        if failed ~= 0 then
            return nil, ffi.string(C.confsync_strerror(failed))
        end
        pool.allocated[column] = want
        have = want
    end
    pool.own_slots = have
    return true
end

-- Reads the head again. It is written as a whole, but may be read while it is: then its
-- check does not match, and the one read before is as good until the write has ended.
local function read_head(pool)
    local words, head = pool.words, pool.head
    for _ = 1, 4 do
        local check = 0
        barrier()
        for i = 0, HEAD_WORDS - 2 do
            local word = words[HEAD + i]
            head[i] = word
            check = bxor(rol(check, 5), word)
        end
        if check == bxor(words[HEAD + HEAD_WORDS - 1], 0) then
            local total, count = 0, 0
            for class = 0, CLASSES - 1 do
                pool.class_count[class] = tonumber(head[2 + 2 * class])
                pool.class_total[class] = tonumber(head[3 + 2 * class])
                count = count + pool.class_count[class]
                total = total + pool.class_total[class]
            end
            pool.total, pool.count, pool.slots = total, count, tonumber(head[1])
            pool.sequence = tonumber(head[0])
            return true
        end
    end
    return pool.sequence ~= nil
end

local function open_pool(folder, name)
    local failed, absent
    if not worker then
        worker, failed, absent = claim_once(folder)
        if not worker then
            return nil, failed, absent
        end
    end
    local pool = { name = name, head = ffi.new("uint32_t[?]", HEAD_WORDS), class_count = {},
                   class_total = {}, host = {}, port = {}, serial = {}, own_slots = 0,
                   active = {}, active_at = -1000 }
    local done
    done, failed, absent = open_members(pool, folder .. "/" .. name .. ".members")
    if not done then
        return nil, failed, absent
    end
    done, failed = open_counts(pool, folder .. "/" .. name .. ".counts")
    if not done then
        return nil, failed
    end
    if not read_head(pool) then
        C.confsync_close(pool.counts_fd)
        return nil, "the table of " .. name .. " is damaged"
    end
    if worker.column then
        -- What the column's last owner left in flight ended with it. Its totals go on.
        local words = column_words(pool, worker.column)
        for slot = 0, tonumber(pool.allocated[worker.column]) - 1 do
            words[slot * 4] = 0
        end
        pool.own = words
        pool.own_totals = cast("double *", words)
        done, failed = allocate(pool, pool.slots)
        if not done then
            uncounted(failed)
        end
    else
        uncounted("more than " .. worker.columns .. " workers are alive")
    end
    pools[name] = pool
    return pool
end

------------------------------------------------------------------------------------------
-- Choosing

-- Whether `slot` is a member now; then its address and weight are known.
local function read_slot(pool, slot)
    if slot >= pool.slots then
        return nil
    end
    local record = pool.slot_bytes + slot * SLOT
    if record[0] ~= MEMBER then
        return nil
    end
    local serial = tonumber(cast("uint32_t *", record)[1])
    if pool.serial[slot] ~= serial then
        -- Slots are written while they are no members, so what is read is whole.
        pool.host[slot] = ffi.string(record + 32)
        pool.port[slot] = record[2] + 256 * record[3]
        pool.serial[slot] = serial
    end
    return record[1] + 1
end

-- A new member's weight grows from nothing to what it is.
local function grown(pool, slot, weight, slow_start)
    if slow_start == 0 then
        return weight
    end
    local joined = cast("double *", pool.slot_bytes + slot * SLOT)[1]
    local age = ngx.now() - joined
    if age < 0 or age >= slow_start then
        return weight
    end
    return weight * math.max(age / slow_start, 0.01)
end

-- A member by weight. Weights are sorted into classes by their power of two: the class is
-- drawn by its total, then its members until one is accepted, which is at least every other.
local function draw(pool, slow_start)
    local point = random(math.max(pool.total, 1))
    for class = 0, CLASSES - 1 do
        local total = pool.class_total[class]
        if point < total then
            local most = math.min(2 ^ (class + 1) - 1, 256)
            local last
            for _ = 1, 16 do
                local slot = pool.order[class * pool.capacity + random(pool.class_count[class])]
                local weight = read_slot(pool, slot)
                if weight then
                    last = slot
                    weight = grown(pool, slot, weight, slow_start)
                    if weight >= most or uniform() * most < weight then
                        return slot
                    end
                end
            end
            return last
        end
        point = point - total
    end
    return nil
end

-- Whether nginx would leave it out: max_fails failures, and fail_timeout not over yet.
local function ejected(pool, slot, max_fails, fail_timeout)
    local health = pool.health + slot * 4
    return max_fails > 0 and health[0] >= max_fails and ngx.now() - health[1] <= fail_timeout
end

local function is_tried(entry, slot)
    for i = 1, #entry.tried do
        if entry.tried[i] == slot then
            return true
        end
    end
    return false
end

-- In flight in all workers. The list of them is a second old at most: enough for a choice.
local function load_of(pool, slot)
    if ngx.now() - pool.active_at >= 1 then
        pool.active, pool.active_at = {}, ngx.now()
        for column = 0, worker.columns - 1 do
            local pid = cast("uint32_t *", worker.bytes + WORKER_DATA + column * WORKER)[0]
            if pid ~= 0 then
                table.insert(pool.active, { column, column_words(pool, column) })
            end
        end
    end
    local sum = 0
    for i = 1, #pool.active do
        local active = pool.active[i]
        -- Where a column has no pages it says nothing.
        if slot < pool.allocated[active[1]] then
            sum = sum + rshift(active[2][slot * 4], 8)
        end
    end
    return sum
end

-- The first usable one from a random place on: exact where drawing may miss, in a small
-- upstream of which most are tried or ejected.
local function scan(pool, usable)
    local start, seen = random(math.max(pool.count, 1)), 0
    for round = 0, 1 do
        local index = 0
        for class = 0, CLASSES - 1 do
            local count = pool.class_count[class]
            for i = math.max(0, start * (1 - round) - index), count - 1 do
                local slot = pool.order[class * pool.capacity + i]
                if read_slot(pool, slot) and usable(slot) then
                    return slot
                end
                seen = seen + 1
                if seen > SCAN then
                    return nil
                end
            end
            index = index + count
        end
    end
end

local function choose(pool, entry, max_fails, fail_timeout, slow_start)
    local first
    for _ = 1, DRAWS do
        local slot = draw(pool, slow_start)
        if slot and slot ~= first and not is_tried(entry, slot)
            and not ejected(pool, slot, max_fails, fail_timeout) then
            if first then
                local a, b = load_of(pool, first), load_of(pool, slot)
                local wa = grown(pool, first, read_slot(pool, first) or 1, slow_start)
                local wb = grown(pool, slot, read_slot(pool, slot) or 1, slow_start)
                -- The second only if it has less to do even with this request: so with little
                -- load the shares are the weights.
                return (b + 1) * wa <= a * wb and slot or first
            end
            first = slot
            if pool.count == 1 then
                break
            end
        end
    end
    if first then
        return first
    end
    -- All are ejected, or nearly: nginx would answer 502. One that may work is better.
    return scan(pool, function(slot)
        return not is_tried(entry, slot) and not ejected(pool, slot, max_fails, fail_timeout)
    end) or scan(pool, function(slot) return not is_tried(entry, slot) end)
end

------------------------------------------------------------------------------------------
-- Counting

-- A count is stored as `count << 8 | 1`, and none as 0. confsync reads while we write, and
-- may see bytes of both: the lowest byte alone says truly whether there is any.
local function count(pool, slot)
    if slot >= pool.own_slots then
        if not worker.column then
            return false
        end
        local done, why = allocate(pool, slot + 1)
        if not done then
            uncounted(why)
            return false
        end
    end
    local word = pool.own[slot * 4]
    pool.own[slot * 4] = word == 0 and 257 or word + 256
    return true
end

local function take_back(entry)
    local pool, slot = entry.pool, entry.slot
    if entry.counted then
        local word = pool.own[slot * 4]
        pool.own[slot * 4] = word < 512 and 0 or word - 256
        entry.counted = false
    end
end

-- One more that it has had.
local function count_total(pool, slot)
    if slot < pool.own_slots then
        pool.own_totals[slot * 2 + 1] = pool.own_totals[slot * 2 + 1] + 1
    end
end

local function failed(pool, slot)
    local health, now = pool.health + slot * 4, ngx.now()
    health[0] = health[0] + 1
    health[1], health[2] = now, now
    if slot < pool.own_slots then
        pool.own[slot * 4 + 1] = pool.own[slot * 4 + 1] + 1
    end
end

-- nginx forgets failures when a peer that was let in again after its pause has answered.
local function succeeded(pool, slot)
    local health = pool.health + slot * 4
    if health[0] > 0 and health[2] < health[1] then
        health[0] = 0
    end
end

------------------------------------------------------------------------------------------
-- Phases

-- The try of this request that is under way: one for the main request and each subrequest.
local function entry_of(key, pointer)
    local entries = requests[key]
    if not entries then
        entries = {}
        requests[key] = entries
        in_flight = in_flight + 1
    end
    for i = 1, #entries do
        if entries[i].pointer == pointer then
            return entries[i]
        end
    end
    local entry = { pointer = pointer, tried = {}, counted = false }
    entries[#entries + 1] = entry
    return entry
end

-- Chooses, counts, and looks again, until nothing has changed in between.
local function take(pool, entry, max_fails, fail_timeout, slow_start)
    for _ = 1, 1000 do
        barrier()
        if pool.words[HEAD] ~= pool.sequence then
            read_head(pool)
        end
        local slot = pool.count > 0
            and choose(pool, entry, max_fails, fail_timeout, slow_start)
        if slot then
            entry.pool, entry.slot, entry.counted = pool, slot, count(pool, slot)
        end
        barrier()
        if pool.words[HEAD] == pool.sequence then
            return slot or nil
        end
        take_back(entry)
        -- A slot may have been given away while its record was read.
        pool.serial = {}
    end
    report("the table of ", pool.name, " changes without end")
    return nil
end

-- As many tries as there are backends: what the last one answers goes to the client. nginx
-- begins with as many as there are `server` lines, which `lines` says, or with the limit of
-- proxy_next_upstream_tries if that is lower; this is what is to be found out before any
-- may be taken away.
local function set_tries(backends, lines)
    if backends >= lines then
        balancer.set_more_tries(backends - lines)
        return
    end
    local _, limited = balancer.set_more_tries(1)
    if not pcall(balancer.set_more_tries, limited and 0 or backends - lines) then
        balancer.set_more_tries(0)
    end
end

-- Sends the request to what answers for an upstream without members: the server of that
-- upstream, which holds it, or the one for all, which answers at once and knows TLS.
--
-- The first holds TLS back before its handshake, and hangs up: so the request is still unsent,
-- and nginx tries again, with the TLS settings of the user's location. $proxy_port shows which
-- protocol proxy_pass uses; that of other modules shows when the server reads it.
local function set_peer_of_none(folder, name, state, status, hold, lines)
    local port, at = ngx.var.confsync_port, name
    if port ~= "80" then
        local waits = hold > 0 or port ~= "443"
        if state then
            -- The user's timeouts may be shorter than `hold`.
            waits = status == 504 and ngx.now() - ngx.req.start_time() < hold
        end
        local _, limited
        if waits then
            -- nginx begins with as many tries as there are lines.
            _, limited = balancer.set_more_tries((state or lines > 0) and 1 or 2)
        end
        if not waits or limited and port == "443" then
            at = ".empty"
        end
    end
    return balancer.set_current_peer("unix:" .. folder .. "/" .. at .. ".sock")
end

-- balancer_by_lua of the upstream `name`, which has so many usable `server` lines. `counted` is
-- false where the user's own log_by_lua hides ours: then nothing is counted that would never be taken back.
function M.pick(folder, name, max_fails, fail_timeout, slow_start, counted, lines, hold)
    local pool = pools[name]
    if not pool then
        local why, absent
        pool, why, absent = open_pool(folder, name)
        if absent then
            return -- nginx's own `server` lines
        elseif not pool then
            report(why)
            return ngx.exit(NGX_BUSY)
        end
    end
    local key = counted and ngx.var.confsync_request
    local entry
    if key then
        entry = entry_of(key, tonumber(cast("uintptr_t", base.get_request())))
    else
        entry = { tried = {} }
    end
    local state, status = balancer.get_last_failure()
    if state and entry.slot then
        -- 404 and 403 are asked of the next one, and are no failures.
        if state == "failed" and max_fails > 0 then
            failed(entry.pool, entry.slot)
        end
        entry.tried[#entry.tried + 1] = entry.slot
    else
        entry.tried = {}
    end
    local slot = entry.pool == pool and entry.reserved
    entry.reserved = nil
    if not slot then
        take_back(entry)
        entry.slot = nil
        slot = take(pool, entry, max_fails, fail_timeout, slow_start)
    end
    if not slot and #entry.tried >= pool.count then
        -- A kept connection that its backend has closed gives one try more than there are
        -- backends.
        entry.tried = {}
        slot = take(pool, entry, max_fails, fail_timeout, slow_start)
    end
    if not slot then
        -- The last one may be leaving: its slot says so before the head does.
        local empty = pool.count == 0 or #entry.tried == 0
        if empty and ngx.var.confsync_held ~= "1" then
            return set_peer_of_none(folder, name, state, status, hold or 0, lines)
        end
        return ngx.exit(NGX_BUSY)
    end
    if not counted then
        take_back(entry)
    end
    local health = pool.health + slot * 4
    if max_fails > 0 and health[0] > 0 and ngx.now() - health[1] > fail_timeout then
        health[1] = ngx.now()
    end
    count_total(pool, slot)
    if not state then
        set_tries(pool.count, lines)
    end
    local done, why = balancer.set_current_peer(pool.host[slot], pool.port[slot])
    if not done then
        take_back(entry)
        report("nginx does not take ", pool.host[slot], ":", pool.port[slot], ": ", why)
        return ngx.exit(NGX_BUSY)
    end
end

-- The last of the values that nginx lists for the tries of a request.
local function last_value(list)
    return list and string.match(list, "([^ ,:]+)$")
end

-- log_by_lua of the http level: what the request had in flight has ended.
function M.log()
    if in_flight == 0 or ngx.is_subrequest then
        return
    end
    local key = ngx.var.confsync_request
    local entries = key and requests[key]
    if not entries then
        return
    end
    requests[key] = nil
    in_flight = in_flight - 1
    local pointer = tonumber(cast("uintptr_t", base.get_request()))
    for i = 1, #entries do
        local entry = entries[i]
        take_back(entry)
        -- The last try is never reported to the balancer. 502 and 504 are nginx's own
        -- if no answer began.
        if entry.pointer == pointer and entry.slot then
            if last_value(ngx.var.upstream_header_time) ~= "-" then
                succeeded(entry.pool, entry.slot)
            else
                local status = last_value(ngx.var.upstream_status)
                if status == "502" or status == "504" then
                    failed(entry.pool, entry.slot)
                end
            end
        end
    end
end

local held = 0

-- Takes a member for this request, for `pick` to use: the one that has been waited for may be
-- the only one, and have left again before nginx asks for it. As it is counted, its drain waits.
local function reserve(pool, max_fails, fail_timeout, slow_start, counted)
    local key = counted and ngx.var.confsync_request
    if not key then
        return pool.count > 0
    end
    local entry = entry_of(key, tonumber(cast("uintptr_t", base.get_request())))
    entry.slot = take(pool, entry, max_fails, fail_timeout, slow_start)
    entry.reserved = entry.counted and entry.slot
    return entry.slot ~= nil
end

-- Waits for a member for at most `seconds`, and reserves it: whether there is one.
local function wait(pool, seconds, ...)
    local deadline = ngx.now() + seconds
    local found = false
    held = held + 1
    repeat
        barrier()
        if pool.words[HEAD] ~= pool.sequence then
            read_head(pool)
        end
        found = pool.count > 0 and reserve(pool, ...)
        local over = found or ngx.now() >= deadline
        if not over then
            -- Many waiting requests look less often each.
            ngx.sleep(math.max(0.005, held / 10000))
        end
    until over
    held = held - 1
    return found
end

-- access_by_lua of the server that answers while an upstream has no member: waits for one
-- for at most `seconds`, else answers 503.
function M.hold(folder, name, seconds, retry_after, ...)
    local pool = pools[name] or open_pool(folder, name)
    if pool and wait(pool, seconds, ...) then
        return
    end
    ngx.header["Retry-After"] = retry_after
    return ngx.exit(503)
end

------------------------------------------------------------------------------------------
-- What is no HTTP/1

local FASTCGI, HTTP2, TLS = "^\1\1%z\1", "^PRI %* HTTP/2", "^\22\3"
-- HTTP/2's way to say that the connection is good for this one request only.
local GOAWAY = "\0\0\8\7\0\0\0\0\0\0\0\0\1\0\0\0\0"
local REASONS = { [502] = "Bad Gateway", [503] = "Service Temporarily Unavailable" }

-- Reads a request of FastCGI to its end, the empty record of its body.
local function read_fastcgi(client)
    repeat
        local head = client:receive(8)
        local _, kind, _, _, high, low, padding = string.byte(head or "", 1, 7)
        local length = padding and 256 * high + low + padding
        local whole = length and (length == 0 or client:receive(length))
    until not whole or kind == 5 and length == 0
end

-- Answers in the words of the protocol that begins with `opening`.
local function answer(client, opening, status, retry_after)
    client:settimeout(1000)
    local text = status .. " " .. REASONS[status]
    local body = text .. "\n"
    local rest = "\r\nContent-Type: text/plain\r\nContent-Length: " .. #body
        .. "\r\nRetry-After: " .. retry_after .. "\r\n\r\n" .. body
    if string.find(opening, HTTP2) then
        -- SETTINGS, and HEADERS of `:status` and `retry-after` that end the stream.
        local after = tostring(retry_after)
        local head = "\8\3" .. status .. "\15\38" .. string.char(#after) .. after
        client:send("\0\0\0\4\0\0\0\0\0" .. GOAWAY
            .. "\0\0" .. string.char(#head) .. "\1\5\0\0\0\1" .. head)
    elseif string.find(opening, FASTCGI) then
        -- To the end first: nginx may keep a connection as soon as it is answered.
        read_fastcgi(client)
        local content = "Status: " .. text .. rest
        client:send("\1\6\0\1\0" .. string.char(#content) .. "\0\0" .. content
            .. "\1\6\0\1\0\0\0\0" .. "\1\3\0\1\0\8\0\0" .. string.rep("\0", 8))
        return
    else
        -- uwsgi, SCGI.
        client:send("HTTP/1.1 " .. text .. rest)
    end
    -- Who still sends is not cut off before it has read this.
    repeat until not client:receiveany(65536)
end

-- A connection to a member, and no answer yet.
local function connect(pool, entry, max_fails, fail_timeout, slow_start, counted)
    for _ = 1, DRAWS do
        local slot = entry.reserved or take(pool, entry, max_fails, fail_timeout, slow_start)
        entry.reserved = nil
        if not slot then
            return nil
        end
        if not counted then
            take_back(entry)
        end
        count_total(pool, slot)
        local backend = ngx.socket.tcp()
        backend:settimeouts(60000, DAY, DAY)
        if backend:connect(pool.host[slot], pool.port[slot]) then
            return backend
        end
        if max_fails > 0 then
            failed(pool, slot)
        end
        take_back(entry)
        entry.slot = nil
        entry.tried[#entry.tried + 1] = slot
    end
end

-- Passes on what comes, until no more does. What the other side does not take any more is
-- thrown away, for its answer may still be under way.
local function pass_on(from, to)
    local takes = true
    repeat
        local bytes = from:receiveany(65536)
        takes = bytes and takes and to:send(bytes)
    until not bytes
end

-- What the client has sent by now; nil if it has gone, tired of waiting: then the request is not
-- to be done any more.
local function sent_by(client)
    local parts = {}
    client:settimeout(1)
    for i = 1, 64 do
        local bytes, why = client:receiveany(65536)
        if why == "closed" then
            return nil
        elseif not bytes then
            break
        end
        parts[i] = bytes
    end
    return table.concat(parts)
end

-- Passes both ways what client and member say, until one of them ends it. The client must not
-- keep the connection for a later request: it would go to the same member.
local function converse(client, sent, backend)
    client:settimeout(DAY)
    if string.find(sent, HTTP2) then
        client:send(GOAWAY)
    elseif string.find(sent, FASTCGI) then
        -- The flag to keep it is in the first record.
        sent = string.sub(sent, 1, 10) .. "\0" .. string.sub(sent, 12)
    end
    backend:send(sent)
    local there = ngx.thread.spawn(pass_on, client, backend)
    local back = ngx.thread.spawn(pass_on, backend, client)
    ngx.thread.wait(there, back)
end

-- Has a member answer on this connection.
local function forward(client, opening, pool, retry_after, ...)
    local counted = select(4, ...)
    local key = counted and ngx.var.confsync_request
    local entry = key and entry_of(key, tonumber(cast("uintptr_t", base.get_request())))
        or { tried = {} }
    local sent = sent_by(client)
    local backend = sent and connect(pool, entry, ...)
    if backend then
        converse(client, sent, backend)
    elseif sent then
        answer(client, opening, 502, retry_after)
    end
    take_back(entry)
    -- How it went is in no variable of nginx: it says nothing about the member.
    entry.slot = nil
end

-- content_by_lua where our servers read what is no HTTP/1: waits for a member of `name` for at
-- most `seconds` and passes the connection on as it is, else answers 503. With TLS it hangs up,
-- see `set_peer_of_none`. Without a name there is nothing to wait for.
function M.other(folder, name, seconds, retry_after, ...)
    if ngx.var.server_protocol then
        return ngx.exit(400) -- HTTP/1, and wrong
    end
    local opening = ngx.var.request or ""
    local pool = name and (pools[name] or open_pool(folder, name))
    if string.find(opening, TLS) then
        if pool then
            wait(pool, seconds)
        end
        return ngx.exit(444)
    end
    local found = pool and wait(pool, seconds, ...)
    local client, why = ngx.req.socket(true)
    if not client then
        report("cannot answer what is no HTTP: ", why)
    elseif found then
        forward(client, opening, pool, retry_after, ...)
    else
        answer(client, opening, 503, retry_after)
    end
    return ngx.exit(444)
end

-- content_by_lua of confsync's own socket: what this worker goes by, for `/NAME`.
function M.state(folder)
    local name = string.sub(ngx.var.uri, 2)
    ngx.header["Content-Type"] = "text/plain"
    local pool, why = pools[name], nil
    if not pool then
        pool, why = open_pool(folder, name)
    end
    if not pool then
        ngx.status = 503
        return ngx.say(why)
    end
    barrier()
    if pool.words[HEAD] ~= pool.sequence then
        read_head(pool)
    end
    ngx.say("pid ", ngx.worker.pid())
    ngx.say("instance ", bit.tohex(pool.words[5]), bit.tohex(pool.words[4]))
    ngx.say("sequence ", pool.sequence)
    ngx.say("members ", pool.count)
    ngx.say("column ", worker.column or "none")
end

package.loaded["confsync.membership"] = M
return M
