set(control_c ${CMAKE_BINARY_DIR}/proto/control.pb-c.c)
set(control_h ${CMAKE_BINARY_DIR}/proto/control.pb-c.h)
add_custom_command(
  OUTPUT ${control_c} ${control_h}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/proto
  COMMAND ${PROTOC_C} --proto_path=${CMAKE_CURRENT_LIST_DIR} --c_out=${CMAKE_BINARY_DIR}/proto
          ${CMAKE_CURRENT_LIST_DIR}/control.proto
  DEPENDS ${CMAKE_CURRENT_LIST_DIR}/control.proto VERBATIM)
# Generated code does not follow our warnings.
set_source_files_properties(${control_c} PROPERTIES COMPILE_OPTIONS "-w")
add_custom_target(us_proto_generated DEPENDS ${control_c} ${control_h})
add_library(us_proto STATIC ${control_c} ${CMAKE_CURRENT_LIST_DIR}/framing.c ${CMAKE_CURRENT_LIST_DIR}/wire_cost.c ${CMAKE_CURRENT_LIST_DIR}/readable.c
  ${CMAKE_CURRENT_LIST_DIR}/states.c ${CMAKE_CURRENT_LIST_DIR}/figures.c ${CMAKE_CURRENT_LIST_DIR}/limits.c ${CMAKE_CURRENT_LIST_DIR}/status_answer.c
  ${CMAKE_CURRENT_LIST_DIR}/answer.c)
add_library(us_events STATIC ${CMAKE_CURRENT_LIST_DIR}/events.c)
target_link_libraries(us_events PUBLIC us_proto PkgConfig::JANSSON)
add_dependencies(us_proto us_proto_generated)
target_link_libraries(us_proto PUBLIC understudy_flags us_common us_end_reason PkgConfig::PROTOBUF_C PkgConfig::GLIB)
