--[[
A button in darktable: the selected raws go through `lowlight restore`, and each linear DNG that it writes into a folder `restored` beside the raw is
imported and grouped with it. Installation: see README.md beside this file. Licence: Apache-2.0, as the whole project.
]]

local dt = require "darktable"

local NAME = "lowlight"
local module = {}

dt.preferences.register(NAME, "command", "string", "lowlight: command",
  "the program `lowlight`, with its full path where it is in an environment of its own", "lowlight")
dt.preferences.register(NAME, "options", "string", "lowlight: options",
  "further options of `lowlight restore`, as --ratio 30 or --symmetries 8", "")

local on_windows = dt.configuration.running_os == "windows"

-- One word of a command line, whatever it holds.
local function quoted(text)
  if on_windows then
    return '"' .. text:gsub('"', "") .. '"'
  end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- The images of a selection by folder; what is no raw is left to lowlight, which says why.
local function by_folder(images)
  local folders = {}
  for _, image in ipairs(images) do
    folders[image.path] = folders[image.path] or {}
    table.insert(folders[image.path], image)
  end
  return folders
end

function module.command(folder, images)
  local words = { dt.preferences.read(NAME, "command", "string"), "restore" }
  local seen = {}
  for _, image in ipairs(images) do
    local raw = image.path .. "/" .. image.filename
    if not seen[raw] then -- duplicates of one raw are one file
      seen[raw] = true
      table.insert(words, quoted(raw))
    end
  end
  table.insert(words, "--files dng --out " .. quoted(folder .. "/restored"))
  table.insert(words, dt.preferences.read(NAME, "options", "string"))
  return table.concat(words, " ")
end

-- Where the DNG of an image lies; nil: it was not written. Two raws of one name have their endings in the names of their results.
function module.result(folder, image)
  local stem, ending = image.filename:match("^(.*)%.([^.]*)$")
  if not stem then return nil end
  for _, name in ipairs({ stem, stem .. "_" .. ending }) do
    local path = folder .. "/restored/" .. name .. "_restored.dng"
    if exists(path) then return path end
  end
  return nil
end

function module.restore(images)
  local restored, failed = 0, {}
  for folder, selected in pairs(by_folder(images)) do
    local status = dt.control.execute(module.command(folder, selected))
    for _, image in ipairs(selected) do
      local path = module.result(folder, image)
      if path then
        local imported = dt.database.import(path)
        if imported then imported:group_with(image.group_leader) end
        restored = restored + 1
      else
        table.insert(failed, image.filename)
      end
    end
    if status ~= 0 then dt.print_error("lowlight ended with status " .. tostring(status) .. " in " .. folder) end
  end
  if #failed > 0 then
    dt.print("lowlight: not restored: " .. table.concat(failed, ", ") .. "; start darktable in a terminal to see why")
  else
    dt.print("lowlight: " .. restored .. " restored")
  end
  return restored, failed
end

local function pressed(_, images)
  if #images == 0 then
    dt.print("lowlight: select raws first")
    return
  end
  local job = dt.gui.create_job("lowlight: restoring " .. #images .. " raws", false)
  local done, message = pcall(module.restore, images)
  job.valid = false
  if not done then dt.print_error("lowlight: " .. tostring(message)) end
end

if dt.configuration.has_gui then
  dt.gui.libs.image.register_action(NAME, "restore by lowlight", pressed,
    "remove the noise of the selected raws, and import the linear DNGs beside them")
end

return module
