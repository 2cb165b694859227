# Assembles the boot-sector guest: bootsector_guest(NAME PAGES n [BASE 0x200000] [STRIDE 4096] [IDLE 1] [KVMCLOCK 1]).
# Makes the target NAME and the file ${CMAKE_CURRENT_BINARY_DIR}/NAME.rom, for QEMU's -bios.
set(BOOTSECTOR_SOURCE ${CMAKE_CURRENT_LIST_DIR}/bootsector.S)
set(BOOTSECTOR_ROM ${CMAKE_CURRENT_LIST_DIR}/rom.S)
function(bootsector_guest name)
  cmake_parse_arguments(guest "" "PAGES;BASE;STRIDE;IDLE;KVMCLOCK" "" ${ARGN})
  foreach(default IN ITEMS PAGES=64 BASE=0x200000 STRIDE=4096 IDLE=0 KVMCLOCK=0)
    string(REPLACE "=" ";" pair ${default})
    list(GET pair 0 key)
    if(NOT DEFINED guest_${key})
      list(GET pair 1 guest_${key})
    endif()
  endforeach()
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${name})
  add_custom_command(OUTPUT ${out}.rom DEPENDS ${BOOTSECTOR_SOURCE} ${BOOTSECTOR_ROM} VERBATIM
    COMMAND ${CMAKE_COMMAND} -E make_directory ${out}.dir
    COMMAND as --32 --defsym PAGES=${guest_PAGES} --defsym BASE=${guest_BASE} --defsym STRIDE=${guest_STRIDE}
            --defsym IDLE=${guest_IDLE} --defsym KVMCLOCK=${guest_KVMCLOCK} -o ${out}.dir/sector.o ${BOOTSECTOR_SOURCE}
    COMMAND ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o ${out}.dir/sector.bin ${out}.dir/sector.o
    COMMAND as --32 -I ${out}.dir -o ${out}.dir/rom.o ${BOOTSECTOR_ROM}
    COMMAND ld -m elf_i386 -e 0 -Ttext 0 --oformat binary -o ${out}.rom ${out}.dir/rom.o)
  add_custom_target(${name} ALL DEPENDS ${out}.rom)
endfunction()
