# Writes OUT, a C++ source that holds the files of LIST, a text of lines "/PATH=FILE".
file(STRINGS ${LIST} lines)
set(arrays "")
set(rows "")
set(count 0)
foreach(line IN LISTS lines)
  string(FIND "${line}" "=" at)
  string(SUBSTRING "${line}" 0 ${at} path)
  math(EXPR at "${at} + 1")
  string(SUBSTRING "${line}" ${at} -1 file)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(APPEND arrays "constexpr unsigned char k${count}[] = {${bytes}0};\n")
  string(APPEND rows "    {\"${path}\", text_of(k${count}, sizeof k${count} - 1)},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(WRITE ${OUT} "#include \"controller/http/web_files.h\"

namespace memslot {
namespace {

${arrays}
std::string_view text_of(const unsigned char* bytes, std::size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

}  // namespace

const BuiltInFile kBuiltInFiles[] = {
${rows}};
const std::size_t kBuiltInFileCount = ${count};

}  // namespace memslot
")
